"""Names that every file system can hold."""

import re

LONGEST_NAME = 200  # bytes; file systems end at 255, and a run's folder adds seed and digest to its label


def is_name(name: str, most: int = LONGEST_NAME) -> bool:
    """Whether `name` is one folder's, on any system and in any terminal: no path, not hidden, all of it printed."""
    parts = "/" in name or "\\" in name or name.startswith(".")
    return bool(name) and not parts and name.isprintable() and len(name.encode()) <= most


def plain_name(text: str) -> str:
    """`text` as a part of a file's name."""
    return re.sub(r"[^\w.+=]+", "_", text).strip("_")
