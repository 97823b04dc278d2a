"""Checksums that a run's small files carry within, so that a flipped bit is noticed instead of believed.

A JSON object has one more key, a text a last line that is a comment. What was written before there were seals has none,
and is taken as it is.
"""

import json
import zlib
from typing import Any

from posexp.storage import untrusted

KEY = "crc32"
LINE = "# crc32 of the lines above: "


def seal(values: dict[str, Any]) -> dict[str, Any]:
    """With the checksum of the rest. `values` are as JSON holds them."""
    return {**values, KEY: crc(values)}


def opened(values: Any) -> dict[str, Any]:
    """Without its seal. Raises ValueError if it is no object, or not the one that was sealed."""
    if not isinstance(values, dict):
        raise ValueError("it is not an object")
    rest = {key: value for key, value in values.items() if key != KEY}
    if KEY in values and values[KEY] != crc(rest):
        raise ValueError("it has been changed since it was written: its checksum differs")
    return rest


def read_sealed(content: bytes) -> dict[str, Any]:
    """The sealed JSON object in a file or a line that may be somebody else's. Raises ValueError."""
    return untrusted.printable(opened(untrusted.parsed(content)))


def crc(values: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def seal_text(text: str) -> str:
    return f"{text}{LINE}{zlib.crc32(text.encode()):08x}\n"


def check_text(text: str) -> None:
    """Raises ValueError if it is not the text that was sealed."""
    above, line, below = text.rpartition(LINE)
    if line and below != f"{zlib.crc32(above.encode()):08x}\n":
        raise ValueError("it has been changed since it was written; if that was you, remove its last line")
