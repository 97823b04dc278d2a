"""The names that are valid on every file system."""

import re

LONGEST_NAME = 200  # bytes; file systems allow 255, and a run's folder adds seed and digest to its label


def is_name(name: str, most: int = LONGEST_NAME) -> bool:
    """Return whether `name` is a valid folder name everywhere: not a path, not hidden, printable."""
    parts = "/" in name or "\\" in name or name.startswith(".")
    return bool(name) and not parts and name.isprintable() and len(name.encode()) <= most


def plain_name(text: str) -> str:
    """Return `text` with characters that are unsafe in file names replaced."""
    return re.sub(r"[^\w.+=]+", "_", text).strip("_")
