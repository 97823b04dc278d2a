"""Text in the tables of reports: one line, escaped for Markdown."""

import re


def markdown_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """`text` on one line, with every character that Markdown or GitHub's mathematics would act on shown as itself."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&#])", r"\\\1", one_line(text))


def one_line(text: str) -> str:
    return " ".join(text.split())
