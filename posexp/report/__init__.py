"""What came out: the eval rows of a group as a CSV file, tables and a picture."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from posexp import whole
from posexp.errors import Misuse, RunFailed
from posexp.report.rows import COLUMNS, Cell, Row, Table, tables

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["COLUMNS", "Cell", "Table", "tables", "write"]


def write(
    rows: list[Row],
    curve_of: dict[str, str],
    folder: Path,
    mixed_targets: bool = False,
    console: "Console | None" = None,
) -> list[Path]:
    """Writes rows.csv, table.md, curves.png and curves.svg into `folder`, prints the tables, returns the paths.

    `curve_of` maps run folder names to curve labels. The same rows give the same bytes. Raises Misuse without
    rows, RunFailed where `folder` cannot be written.
    """
    if not rows:
        raise Misuse("nothing to report: these runs have no eval rows; run posexp eval first")
    from rich.console import Console
    from rich.text import Text

    from posexp.report.curves import pictures
    from posexp.report.table import markdown, print_tables

    console = console or Console()
    shown = tables(rows, curve_of, mixed_targets)
    png, svg = pictures(shown)
    contents = {
        "rows.csv": csv_of(rows).encode(),
        "table.md": markdown(shown).encode(),
        "curves.png": png,
        "curves.svg": svg,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            whole.write(folder / name, content)
    except OSError as error:
        raise RunFailed(f"cannot write the report into {folder}: {error.strerror or error}") from error
    print_tables(shown, console)
    paths = [folder / name for name in contents]
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)
    return paths


def csv_of(rows: list[Row]) -> str:
    """COLUMNS, then other keys in the order they appear; None is an empty field."""
    extras = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in COLUMNS]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *extras], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
