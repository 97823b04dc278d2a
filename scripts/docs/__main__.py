"""python -m scripts.docs [--check | --stage | --pictures [scheme …]]

Write the generated pages of the guide: docs/schemes, docs/reference, docs/studies.md and docs/llms.txt, and the schemes
in the navigation of mkdocs.yml. They come from the schemes, the dataclasses of options, the columns of a row, the
published studies and that navigation.

--check     write nothing, and fail if a page is stale
--stage     write the source of the site to build/guide-src, for Zensical (make docs)
--pictures  train every scheme, or those named, for a few seconds and draw docs/pictures/schemes; all of them take ten
            minutes on one core
"""

import sys
from pathlib import Path

from posexp.errors import PosexpError
from posexp.output.console import say
from posexp.storage import atomic
from scripts.docs import llms, pictures, reference, schemes, site, studies
from scripts.docs.common import ROOT


def pages() -> dict[Path, str]:
    """Return the text of every generated page."""
    made = {**schemes.pages(), **reference.pages(), **studies.pages()}
    return made | llms.pages(made) | {ROOT / "mkdocs.yml": site.configuration()}


def stale(made: dict[Path, str]) -> list[Path]:
    """Return the pages that differ from their sources, and pages of schemes that no longer exist."""
    gone = {
        path
        for folder in {page.parent for page in made if page.parent.name == "schemes"}
        for path in folder.glob("*.md")
    }
    return sorted(
        [page for page, text in made.items() if not page.is_file() or page.read_text() != text]
        + [*(gone - made.keys())]
    )


def main(words: list[str]) -> int:
    mode, names = (words[0] if words else ""), words[1:]
    if mode not in ("", "--check", "--stage", "--pictures") or (names and mode != "--pictures"):
        say(str(__doc__))
        return 2
    try:
        if mode == "--stage":
            site.stage()
        elif mode == "--pictures":
            pictures.draw(names)
        else:
            made = pages()
            found = stale(made)
            for page in found if not mode else ():
                if page in made:
                    atomic.write_file(page, made[page])
                else:
                    page.unlink()
            if found:
                say(f"{'stale' if mode else 'written'}: {', '.join(str(page.relative_to(ROOT)) for page in found)}")
            return 1 if found and mode else 0
    except (PosexpError, OSError) as error:
        say(str(error))
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
