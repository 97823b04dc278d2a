"""docs/llms.txt: every page of the guide with its first sentence, in the order of the navigation (llmstxt.org)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.docs.common import DOCS
from scripts.docs.site import navigation

ABOUT = """posexp trains small decoder language models that differ only in their positional scheme, evaluates them on
the same targets with more and more context, and reports what longer inputs do to them."""


def first_sentence(text: str) -> str:
    """Return the first sentence of a page's prose, without links and marks."""
    blocks = [block for block in text.split("\n\n") if re.match(r"[\w*`\[\"(]", block)]
    prose = " ".join(blocks[0].split()) if blocks else ""
    prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", prose).replace("**", "").replace("`", "")
    found = re.match(r"(.+?(?<! al)[.?!])(?=\s|$)", prose)
    return found[1] if found else prose.rstrip(":")


def lines(nav: dict[str, Any], made: dict[Path, str]) -> Iterator[str]:
    for title, inner in nav.items():
        if isinstance(inner, dict):
            yield from lines(inner, made)
        elif (DOCS / inner) in made or (DOCS / inner).is_file():
            text = made.get(DOCS / inner) or (DOCS / inner).read_text()
            yield f"- [{title}]({inner}): {first_sentence(text)}".rstrip(": ")


def pages(made: dict[Path, str]) -> dict[Path, str]:
    """Return the index of all pages; `made` has the generated ones."""
    nav = navigation()
    single = {title: inner for title, inner in nav.items() if isinstance(inner, str)}
    parts = ["# posexp\n", f"> {' '.join(ABOUT.split())}\n", "## Guide\n", *lines(single, made)]
    for title, inner in nav.items():
        if isinstance(inner, dict):
            parts += [f"\n## {title}\n", *lines(inner, made)]
    return {DOCS / "llms.txt": "\n".join(parts) + "\n"}
