"""Names and sentences as text of one line, for Markdown or elsewhere."""

import re


def escape(text: str) -> str:
    """Return `text` on one line, with the characters that Markdown or GitHub mathematics interprets escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&#])", r"\\\1", one_line(text))


def one_line(text: str) -> str:
    return " ".join(text.split())
