"""The checksums inside a run's small files, which detect corruption.

A JSON object stores its checksum under one more key, a text in a last line that is a comment. Files of older versions
have no checksum and are read unchecked.
"""

import json
import zlib
from typing import Any

from posexp.storage import untrusted

KEY = "crc32"
LINE = "# crc32 of the lines above: "


def seal(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values`, which must be JSON values, with their checksum."""
    return {**values, KEY: crc(values)}


def opened(values: Any) -> dict[str, Any]:
    """Return the values without their checksum. Raises ValueError unless they are an object with a valid checksum."""
    if not isinstance(values, dict):
        raise ValueError("it is not an object")
    rest = {key: value for key, value in values.items() if key != KEY}
    if KEY in values and values[KEY] != crc(rest):
        raise ValueError("it has been changed since it was written: its checksum differs")
    return rest


def read_sealed(content: bytes) -> dict[str, Any]:
    """Parse and check the JSON object of an untrusted file or line. Raises ValueError."""
    values = untrusted.parsed(content)
    above, mark, checksum = content.rpartition(f', "{KEY}": "'.encode())
    if mark and isinstance(values, dict) and checksum == f'{zlib.crc32(above + b"}"):08x}"}}'.encode():
        values.pop(KEY)  # as it was written, so it need not be serialised again
    else:
        values = opened(values)
    return values if untrusted.is_plain(content) else untrusted.printable(values)


def crc(values: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def seal_text(text: str) -> str:
    return f"{text}{LINE}{zlib.crc32(text.encode()):08x}\n"


def check_text(text: str) -> None:
    """Raise ValueError if the checksum of `text` differs."""
    above, line, below = text.rpartition(LINE)
    if line and below != f"{zlib.crc32(above.encode()):08x}\n":
        raise ValueError("it has been changed since it was written; if that was you, remove its last line")
