"""docs/studies.md: a gallery of the published studies, from their pages and from results/README.md."""

import re
from functools import cache
from pathlib import Path

from scripts.docs.common import DOCS, MARK, ROOT, moved_links, paragraph, sentence, slug

RESULTS = ROOT / "results"
STUDIES = RESULTS / "studies"
ABOUT_RUNS = ("From the", "The tables", "Measured")  # beginnings of paragraphs on how a study was made
STARTS = ("posexp ", "scripts/", "make ")  # of a command, behind settings of the environment


def rows_of(text: str, first: str) -> list[list[str]]:
    """Return the rows of the Markdown table whose first column is called `first`."""
    lines = text.partition(f"| {first} |")[2].split("\n")[2:]
    ends = next(n for n, line in enumerate(lines) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:ends]]


@cache
def listed() -> dict[str, list[str]]:
    """Return what each study is, its size, and where it ran, from the list in results/README.md, in its order."""
    rows = rows_of((RESULTS / "README.md").read_text(), "study")
    return {re.match(r"\[(.*?)\]", row[0])[1]: row[1:] for row in rows}  # type: ignore[index]


def questions() -> list[tuple[str, str, list[str]]]:
    """Return each question of results/README.md with its answer and the studies of its evidence."""
    rows = rows_of((RESULTS / "README.md").read_text(), "question")
    return [(row[0], row[1], re.findall(r"\]\(studies/([\w-]+)\)", row[2])) for row in rows]


def title(study: str) -> str:
    return (STUDIES / study / "README.md").read_text().partition("\n")[0].removeprefix("# ")


def anchored(text: str) -> str:
    """Return text of results/README.md with links to studies that lead to their places in the gallery."""
    text = re.sub(r"\]\(studies/([\w-]+)\)", lambda hit: f"](#{slug(title(hit[1]))})", text)
    return moved_links(text, RESULTS, DOCS)


def command(text: str) -> str:
    """Return the first command of a study's page, with the lines that continue it."""
    block = re.search(r"^((?: {4}.*\n)+)", text, re.M)
    assert block
    lines = block[1].splitlines()
    shown: list[str] = []
    for line in lines:
        shown.append(line)
        words = re.sub(r"^(\w+=\S+ )+", "", " ".join(lines[len(shown) - 1].split()))
        if not line.endswith("\\") and (words.startswith(STARTS) or (len(shown) > 1 and shown[-2].endswith("\\"))):
            break
    return "\n".join(shown)


def finding(text: str) -> str:
    """Return the first list item of a study's page, or the first paragraph on what was found."""
    blocks = [block.strip("\n") for block in re.split(r"\n\n|\n(?=- )", text.partition("\n")[2])]
    prose = [block for block in blocks if re.match(r"[\w*\[]", block) and not block.startswith(ABOUT_RUNS)]
    items = [block.removeprefix("- ") for block in blocks if block.startswith("- ")]
    return (items + [block for block in prose if not block.endswith(":")])[0]


def section(study: str) -> str:
    folder = STUDIES / study
    text = (folder / "README.md").read_text()
    _, size, where = listed()[study]
    mine = [row for row in questions() if row[2][0] == study]
    also = [row for row in questions() if study in row[2] and row not in mine]
    parts = [f"## {title(study)}\n"]
    parts += [paragraph(f"**{question}** {anchored(answer)}") for question, answer, _ in mine]
    if not mine:
        parts.append(paragraph(moved_links(finding(text), folder, DOCS)))
    picture = re.search(r"^!\[.*?\]\(.*?\)$", text, re.M)
    if picture:
        parts.append(moved_links(picture[0], folder, DOCS) + "\n")
    parts.append(f"{command(text)}\n")
    parts.append(
        paragraph(f"{sentence(size)} It ran on {where}. [All of the study](../results/studies/{study}/README.md).")
    )
    for home in dict.fromkeys(row[2][0] for row in also):
        named = " ".join(f"*{row[0]}*" for row in also if row[2][0] == home)
        parts.append(paragraph(f"It is also evidence on questions of [{title(home)}](#{slug(title(home))}): {named}"))
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    about = """Each published study has a question, an answer, a picture and a command.
    [results/README.md](../results/README.md) has the answers in one table, with the strength of each, and says what
    models of this size cannot show."""
    parts = ["# Studies\n", MARK, paragraph(about), *map(section, listed())]
    return {DOCS / "studies.md": "\n".join(parts)}
