"""Files of one JSON object a line: metrics and result rows."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from posexp.errors import RunFailed
from posexp.storage import atomic, checksum, untrusted

NAMED = 8  # damaged lines that are named; of more, how many
MOST_COLUMNS = 100
MOST_LINES = 250_000  # of a file; a long study has ten thousand

Columns = Mapping[str, Callable[[Any], bool]]  # what the value of a column may be; None where it may be left out


def append(path: Path, row: dict[str, Any]) -> None:
    """Adds `row`, or nothing if that fails; a torn last line of an earlier crash is left alone and ended first.

    One process at a time: whoever holds the file's lock. Raises OSError.
    """
    line = sealed_line(row)
    with atomic.named(path), path.open("ab+", buffering=0) as file:
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


def sealed_line(row: dict[str, Any]) -> bytes:
    return json.dumps(checksum.seal(row), allow_nan=False).encode() + b"\n"


def read_lines(
    path: Path, say: Callable[[str], None], needed: Columns | None = None, known: Columns | None = None
) -> list[dict[str, Any]]:
    """All rows that can be read: flat objects in which every `needed` column is right, and every `known` one if there.

    What cannot is told in one line through `say`, never passed over in silence. Raises RunFailed for a file that is too
    large or no regular one.
    """
    if not path.is_file():
        return []
    try:
        content = untrusted.read_bytes(path)
        if (lines := content.count(b"\n")) > MOST_LINES:
            raise ValueError(f"it has {lines:,} lines, and at most {MOST_LINES:,} are read")
    except ValueError as error:
        raise RunFailed(f"{path} cannot be read: {error}") from error
    rows, damaged = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = checksum.read_sealed(line)
            if not fits(row, needed or {}, known or {}):
                raise ValueError
            rows.append(row)
        except ValueError:
            damaged.append(number)
    if damaged:
        more = f" and {len(damaged) - NAMED:,} more" if len(damaged) > NAMED else ""
        say(
            f"{path}: line {', '.join(map(str, damaged[:NAMED]))}{more} cannot be read (damaged or cut off) and is "
            "left out"
        )
    return rows


def fits(row: Any, needed: Columns, known: Columns) -> bool:
    if not isinstance(row, dict) or len(row) > MOST_COLUMNS:
        return False
    if any(isinstance(value, (dict, list)) for value in row.values()):
        return False
    right = all(name in row and is_right(row[name]) for name, is_right in needed.items())
    return right and all(row.get(name) is None or is_right(row[name]) for name, is_right in known.items())


def rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replaces the file's rows, all or nothing."""
    atomic.write_file(path, b"".join(map(sealed_line, rows)))
