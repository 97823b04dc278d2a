"""The source of the site: the pages of docs/ and every file that they lead to, with links that hold there.

docs/ becomes the root of the site, README.md the page readme.md, and other files keep their paths. A link to a folder
leads to its README.md.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts.docs import schemes
from scripts.docs.common import DOCS, ROOT, is_local, links, relinked

STAGE = ROOT / "build" / "guide-src"
RENAMED = {ROOT / "README.md": Path("readme.md")}  # README.md would be the index, which is docs/index.md


def configuration() -> str:
    """Return mkdocs.yml with a page for every scheme, by family, in its navigation."""
    lines = ["      - All schemes: schemes/index.md"]
    for family, title in schemes.FAMILIES.items():
        of_family = [path for path in schemes.files("scheme") if schemes.look(path)[0] == family]
        lines.append(f"      - {title}:")
        lines += [f"          - {path.stem}: schemes/{path.stem}.md" for path in sorted(of_family, key=schemes.look)]
    block = "  - Schemes:\n" + "".join(f"{line}\n" for line in lines)
    return re.sub(r"^  - Schemes:\n(?: {6}.*\n)+", block, (ROOT / "mkdocs.yml").read_text(), flags=re.M)


def navigation() -> dict[str, Any]:
    """Return the `nav` of mkdocs.yml as {title: page or section}."""
    nav = yaml.safe_load(configuration())["nav"]

    def section(entries: list[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for entry in entries:
            ((title, inner),) = ({Path(entry).stem: entry} if isinstance(entry, str) else entry).items()
            found[title] = section(inner) if isinstance(inner, list) else inner
        return found

    return section(nav)


def page_paths(nav: dict[str, Any]) -> Iterator[str]:
    for inner in nav.values():
        yield from [inner] if isinstance(inner, str) else page_paths(inner)


def target_of(page: Path, path: str) -> Path:
    """Return the file that a link on `page` leads to: README.md of a folder that has one."""
    target = Path(os.path.normpath(page.parent / path))
    return target / "README.md" if (target / "README.md").is_file() else target


def place_of(file: Path) -> Path:
    """Return the path of a file of the repository within the site."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS)
    return RENAMED.get(file, file.relative_to(ROOT))


def staged(page: Path) -> str:
    """Return the Markdown of a page with the links that it has in the site."""
    here = place_of(page).parent
    return relinked(page.read_text(), lambda path: os.path.relpath(place_of(target_of(page, path)), here))


def stage(goal: Path = STAGE) -> None:
    """Write the source of the site to a folder, which is emptied first."""
    shutil.rmtree(goal, ignore_errors=True)
    seen = sorted(path for path in DOCS.rglob("*") if path.is_file())
    for file in seen:
        place = goal / place_of(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            place.write_text(staged(file))
            led = (target_of(file, link.partition("#")[0]) for link in links(file.read_text()) if is_local(link))
            seen += [target for target in dict.fromkeys(led) if target.is_file() and target not in seen]
        elif file.name == "llms.txt":
            place.write_text(file.read_text().replace(".md)", ".html)"))
        else:
            shutil.copyfile(file, place)
