"""Files of one JSON object a line: metrics and result rows."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posexp import seal, whole


def append(path: Path, row: dict[str, Any]) -> None:
    """Adds `row`, or nothing if that fails; a torn last line of an earlier crash is left alone and ended first.

    One process at a time: whoever holds the file's lock. Raises OSError.
    """
    line = line_of(row)
    with whole.named(path), path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        try:
            left = memoryview(line)
            while left:  # a disk that fills up takes a part
                left = left[file.write(left) :]
        except BaseException:
            file.truncate(size)
            raise


def line_of(row: dict[str, Any]) -> bytes:
    return json.dumps(seal.seal(row), allow_nan=False).encode() + b"\n"


def read(path: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rows that can be read; what cannot is told in one line through `say`, never passed over in silence."""
    if not path.is_file():
        return []
    rows, damaged = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(seal.opened(json.loads(line)))
        except ValueError:
            damaged.append(number)
    if damaged:
        say(f"{path}: line {', '.join(map(str, damaged))} cannot be read (damaged or cut off) and is left out")
    return rows


def rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replaces the file's rows, all or nothing."""
    whole.write(path, b"".join(map(line_of, rows)))
