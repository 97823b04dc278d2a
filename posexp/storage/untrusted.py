"""The readers for untrusted files, such as a downloaded run folder: bounded in size, and without running code.

Text from these readers is safe to print: every control character is escaped, as in \\x1b.
"""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 256 << 20  # of a text file; real ones have a few MB
DEEPEST = 32  # nesting; real files are six deep
MOST = 1 << 53  # of an integer, so that a float can represent it


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file. Raises OSError; ValueError for a link, a pipe, a device or more than `most` bytes."""
    with open_file(path, most) as file:
        return file.read()


def open_file(path: Path, most: int) -> BinaryIO:
    """Open a regular file for reading. Raises as `read_bytes` does."""
    refuse_link(path)
    # O_NONBLOCK: opening a pipe would wait for a writer
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")  # noqa: SIM115 - the caller closes it
    about = os.fstat(file.fileno())
    try:
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not a regular file")
        if about.st_size > most:
            raise ValueError(f"it has {about.st_size:,} bytes, and at most {most:,} are read")
    except ValueError:
        file.close()
        raise
    return file


def refuse_link(path: Path) -> None:
    """Raise ValueError for a symbolic link, whose target an attacker may have chosen."""
    if path.is_symlink():
        raise ValueError(f"{path.name} is a symbolic link, which is not followed out of the folder")


def json_of(content: bytes) -> Any:
    """Parse JSON and escape its text. Raises ValueError as `parsed` does, and beyond DEEPEST levels."""
    value, text = parsed(content), content.decode().strip()
    if text.isprintable() and "\\" not in text and text.count("{") + text.count("[") <= DEEPEST:
        return value  # nothing to escape, as in most rows
    return printable(value)


def object_of(content: bytes) -> dict[str, Any]:
    """Parse a JSON object and escape its text, without the checksum that older versions of posexp added."""
    values = json_of(content)
    if not isinstance(values, dict):
        raise ValueError("it is not an object")
    values.pop("crc32", None)
    return values


def parsed(content: bytes) -> Any:
    """Parse JSON without escaping its text. Raises ValueError for invalid JSON and numbers out of range."""
    try:
        return DECODER.decode(content.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def printable(value: Any, depth: int = 0) -> Any:
    """Return `value` with all of its text escaped by `visible`. Raises ValueError beyond DEEPEST levels."""
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
    """Return `text` with every unprintable or direction-changing character escaped: \\n, \\x1b, \\u202e."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def whole_number(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MOST:
        raise ValueError("a whole number is too large")
    return int(text)


DECODER = json.JSONDecoder(parse_constant=no_number, parse_float=finite, parse_int=whole_number)

# Checks of the fields of files.


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e300


def is_loss(value: Any) -> bool:
    """Return whether `value` can be a loss in nats or bits; rounding may make it slightly negative."""
    return type(value) in (int, float) and -1 <= value < 1e300


def is_perplexity(value: Any) -> bool:
    return is_loss(value) and value > 0.1


def is_share(value: Any) -> bool:
    return is_amount(value) and value <= 1
