"""The Markdown that users read: lines of at most 100 characters, and plain words of the field."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINE = 100
DOCS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "results/LOG.md")]
DOCS += sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "results" / "reliability.md", *sorted((ROOT / "results").rglob("README.md"))]

FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
INDENTED = re.compile(r"(?:(?<=\A)|(?<=\n\n))(?: {4}.*\n*)+")
INLINE = re.compile(r"`[^`\n]+`")
TARGET = re.compile(r"\]\([^)]*\)|https?://\S+")  # of a link: it cannot be broken

DIALECT = {  # what is not written: what is
    r"told": "print, report, distinguish",
    r"(?:is|are|was|were) (?:none|no|not to be)": "must be, cannot, has no",
    r"(?:left|leaves?) out": "omit, skip, exclude",
    r"passed (?:over|by)": "skip",
    r"put down": "write, record",
    r"(?:made|make|makes) again": "rebuild, write again",
    r"anew": "again",
    r"whoever": "anyone who",
    r"heard": "receive",
    r"ask(?:s|ed)? for": "request, need",
    r"(?:go|goes|going|gone|went) on": "continue, resume",
    r"sa(?:y|ys|id) so": "report, print",
    r"looks? on|looked at again": "monitor, check again",
    r"held against": "compare with",
}


def without_code(text: str) -> str:
    """Blank code, so that every other line keeps its number."""
    for code in (FENCED, INDENTED):
        text = code.sub(lambda block: "\n" * block[0].count("\n"), text)
    return text


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_lines_fit(path):
    lines = enumerate(without_code(path.read_text()).splitlines(), 1)
    lines = [(number, TARGET.sub("", line)) for number, line in lines if not line.startswith("|")]
    assert [f"{number}: {line}" for number, line in lines if len(line) > MAX_LINE] == []


@pytest.mark.parametrize("path", DOCS + PAGES, ids=name)
def test_words_are_those_of_the_field(path):
    prose = INLINE.sub("`", without_code(path.read_text()))
    found = [
        f"line {prose.count(chr(10), 0, hit.start()) + 1}: {hit[0]!r}, better: {better}"
        for phrase, better in DIALECT.items()
        for hit in re.finditer(r"\b(?:" + phrase.replace(" ", r"\s+") + r")\b", prose, re.I)
    ]
    assert found == []


def test_code_is_not_prose():
    text = "a\n\n    told\n\nb\n```\ntold\n```\n- c\n    d\n"
    assert without_code(text) == "a\n\n\n\nb\n\n\n\n- c\n    d\n"
