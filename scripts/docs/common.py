"""What all generated pages share: Markdown tables and paragraphs, links, and the numbers of scripts/fill."""

import importlib.machinery
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from textwrap import fill
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WIDTH = 100
MARK = "<!-- Written by python -m scripts.docs: change its source, not this page. -->\n"
CODE = re.compile(r"(^```[\s\S]*?^```$|`[^`\n]*`|(?:(?<=\n\n)|\A)(?: {4}.*\n+)+)", re.M)
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
SOURCE = re.compile(r"arXiv (\d{4}\.\d{5})|\b((?:[a-z]+\.)+[a-z]+/[\w/.-]+)")


@cache
def fill_script() -> ModuleType:
    """Return scripts/fill as a module: its functions compute the numbers of studies."""
    loader = importlib.machinery.SourceFileLoader("fill", str(ROOT / "scripts" / "fill"))
    spec = importlib.util.spec_from_loader("fill", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def paragraph(text: str) -> str:
    return fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """Return a Markdown table. With `numbers` all columns but the first are aligned right."""
    marks = ["---", *(["---:" if numbers else "---"] * (len(header) - 1))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, marks, *rows))


def plain(text: str) -> str:
    """Return text for a cell of a table, with what Markdown would interpret escaped."""
    return re.sub(r"([*|])", r"\\\1", " ".join(text.split()).replace("<", "&lt;"))


def code(text: str) -> str:
    escaped = text.replace("|", "\\|")
    return f"`{escaped}`" if text else ""


def sourced(text: str) -> str:
    """Return the source of a component with its paper or page as a link."""
    return SOURCE.sub(lambda hit: f"[{hit[0]}](https://{f'arxiv.org/abs/{hit[1]}' if hit[1] else hit[2]})", text)


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def slug(heading: str) -> str:
    """Return the anchor of a heading, as git hosts and the site make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", text.strip()))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return Markdown with `change` applied to all text that is not code."""
    return "".join(part if n % 2 else change(part) for n, part in enumerate(CODE.split(text)))


def links(text: str) -> list[str]:
    """Return the targets of all links and pictures."""
    found: list[str] = []
    outside_code(text, lambda part: found.extend(LINK.findall(part)) or part)  # type: ignore[func-returns-value]
    return found


def is_local(target: str) -> bool:
    return re.match(r"[a-z]+:", target) is None


def relinked(text: str, change: Callable[[str], str]) -> str:
    """Return Markdown with the path of every local link replaced by `change(path)`; anchors stay."""

    def moved(hit: re.Match[str]) -> str:
        path, hash_, anchor = hit[1].partition("#")
        return hit[1] if not path or not is_local(hit[1]) else change(path) + hash_ + anchor

    return outside_code(text, lambda part: LINK.sub(moved, part))


def moved_links(text: str, source: Path, goal: Path) -> str:
    """Return the Markdown of a page in folder `source` for a page in folder `goal`."""
    return relinked(text, lambda path: os.path.relpath(source / path, goal))
