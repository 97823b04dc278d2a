"""Files that may be somebody else's, such as a downloaded run folder: data, read within bounds, that runs nothing.

What is read here can be printed: every character that a terminal would act on is written out, as in \\x1b.
"""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 256 << 20  # of one file of text; real ones have a few MB
DEEPEST = 32  # of values inside values; real ones are six deep
MOST = 1 << 53  # of a whole number, so that a float holds it too


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises OSError; ValueError for a link, a pipe or a device, or too many bytes."""
    refuse_link(path)
    # O_NONBLOCK: opening a pipe would wait for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not a regular file")
        if about.st_size > most:
            raise ValueError(f"it has {about.st_size:,} bytes, and at most {most:,} are read")
        return file.read(about.st_size)


def refuse_link(path: Path) -> None:
    """Raises ValueError for a symbolic link: whoever made the folder chose where it leads."""
    if path.is_symlink():
        raise ValueError(f"{path.name} is a symbolic link, which is not followed out of the folder")


def json_of(content: bytes) -> Any:
    """Raises ValueError for what is not JSON of finite numbers, nested DEEPEST times at most."""
    return printable(parsed(content))


def parsed(content: bytes) -> Any:
    """The same with its text as it is."""
    try:
        return json.loads(content.decode(), parse_constant=no_number, parse_float=finite, parse_int=whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def printable(value: Any, depth: int = 0) -> Any:
    """`value` with all of its text `visible`. Raises ValueError beyond DEEPEST."""
    if isinstance(value, str):
        return visible(value)
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        return {visible(key): printable(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [printable(inner, depth + 1) for inner in value]
    return value


def visible(text: str) -> str:
    """`text` with every character that is not printed, or moves what is, written out: \\n, \\x1b, \\u202e."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def whole_number(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MOST:
        raise ValueError("a whole number is too large")
    return int(text)


# What a field of a file may be.


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e300


def is_loss(value: Any) -> bool:
    """In nats or bits: rounding may take one below 0, but not far."""
    return type(value) in (int, float) and -1 <= value < 1e300


def is_perplexity(value: Any) -> bool:
    return is_loss(value) and value > 0.1


def is_share(value: Any) -> bool:
    return is_amount(value) and value <= 1
