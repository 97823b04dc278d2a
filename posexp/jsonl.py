"""Files of one JSON object a line: metrics and result rows."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posexp import whole


def append(path: Path, row: dict[str, Any]) -> None:
    """Adds `row` in one write; a torn last line of an earlier crash is left alone and ended first."""
    line = json.dumps(row, allow_nan=False) + "\n"
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())


def read(path: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rows that can be read; what cannot is told in one line through `say`, never passed over in silence."""
    if not path.is_file():
        return []
    rows, damaged = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
            rows.append(row)
        except ValueError:
            damaged.append(number)
    if damaged:
        say(f"{path}: line {', '.join(map(str, damaged))} cannot be read (damaged or cut off) and is left out")
    return rows


def rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replaces the file's rows, all or nothing."""
    whole.write(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
