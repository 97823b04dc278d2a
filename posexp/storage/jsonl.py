"""The files with one JSON object per line: metrics and result rows."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from posexp.errors import RunFailed
from posexp.storage import atomic, untrusted

NAMED = 8  # damaged lines listed by number; further ones are counted
MOST_COLUMNS = 100
BLOCK = 1 << 13  # bytes
MOST_LINE = 1 << 20  # bytes; a longer line is read as several, which are damaged
MOST_BYTES = 1 << 32  # of a file, as 20 million steps of training write

Columns = Mapping[str, Callable[[Any], bool]]  # the check of each column's values


def append(path: Path, row: dict[str, Any]) -> None:
    """Append `row` as one line, or nothing if writing fails. A torn last line of an earlier crash is terminated first.

    The caller must hold the file's lock. Raises OSError.
    """
    line = line_of(row)
    with atomic.naming(path), path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        try:
            left = memoryview(line)
            while left:  # a disk that fills up accepts only a part
                left = left[file.write(left) :]
        except BaseException:
            file.truncate(size)
            raise


def line_of(row: dict[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def read_lines(
    path: Path, say: Callable[[str], None], needed: Columns | None = None, known: Columns | None = None
) -> list[dict[str, Any]]:
    """Load all valid rows: flat objects whose `needed` columns, and `known` columns if present, pass their checks.

    One line through `say` lists the damaged lines, which are skipped. Raises RunFailed for a file that is too large or
    not a regular file.
    """
    if not path.is_file():
        return []
    rows, damaged = [], []
    try:
        with untrusted.open_file(path, MOST_BYTES) as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), b""), start=1):
                if not line.strip():
                    continue
                row = valid_row(line, needed or {}, known or {})
                if row is not None:
                    rows.append(row)
                else:
                    damaged.append(number)
    except ValueError as error:
        raise RunFailed(f"{path} cannot be read: {error}") from error
    if damaged:
        more = f" and {len(damaged) - NAMED:,} more" if len(damaged) > NAMED else ""
        numbers = ", ".join(map(str, damaged[:NAMED]))
        say(f"{path}: line {numbers}{more} cannot be read (damaged or cut off) and is skipped")
    return rows


def last_rows(
    path: Path, columns: Sequence[str], say: Callable[[str], None], known: Columns | None = None
) -> dict[str, dict[str, Any]]:
    """Return the last valid row that has a value in a column, for each of `columns` that has one.

    The file is read from its end, as far as it must be. Otherwise as `read_lines`, but a damaged line has no number.
    """
    found: dict[str, dict[str, Any]] = {}
    marks = {column: f'"{column}":'.encode() for column in columns}
    damaged = 0
    for line in lines_backwards(path) if path.is_file() else ():
        if not any(mark in line for mark in marks.values()):
            continue
        row = valid_row(line, {}, known or {})
        if row is None:
            damaged += 1
            continue
        for column in [column for column in marks if row.get(column) is not None]:
            found[column] = row
            del marks[column]
        if not marks:
            break
    if damaged:
        say(f"{path}: {damaged} lines cannot be read (damaged or cut off) and are skipped")
    return found


def lines_backwards(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file from the last to the first. Raises RunFailed unless it is a regular file."""
    try:
        file = untrusted.open_file(path, MOST_BYTES)
    except ValueError as error:
        raise RunFailed(f"{path} cannot be read: {error}") from error
    with file:
        at = file.seek(0, os.SEEK_END)
        rest = b""  # the end of a line whose beginning is in an earlier block
        while at:
            at, size = max(0, at - BLOCK), min(at, BLOCK)
            file.seek(at)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            yield from reversed(lines)
        yield rest


def valid_row(line: bytes, needed: Columns, known: Columns) -> dict[str, Any] | None:
    """Return the flat object of a line, or None if the line is damaged or a column fails its check."""
    try:
        row = untrusted.object_of(line)
    except ValueError:
        return None
    flat = len(row) <= MOST_COLUMNS and not any(isinstance(value, (dict, list)) for value in row.values())
    right = flat and all(name in row and is_right(row[name]) for name, is_right in needed.items())
    right = right and all(row.get(name) is None or is_right(row[name]) for name, is_right in known.items())
    return row if right else None


def rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the file's rows atomically."""
    atomic.write_file(path, b"".join(map(line_of, rows)))
