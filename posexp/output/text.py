"""Names and sentences as text of one line, for Markdown or elsewhere."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any


def escape(text: str) -> str:
    """Return `text` on one line, with the characters that Markdown or GitHub mathematics interprets escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&#])", r"\\\1", one_line(text))


def one_line(text: str) -> str:
    return " ".join(text.split())


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Return the rows as CSV. None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
