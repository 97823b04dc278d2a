"""What came out: the eval rows of a group as CSV files, tables, a picture and a page."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from posexp.errors import Misuse, RunFailed
from posexp.evaluation.rows import COLUMNS, Row
from posexp.report.cell import Cell
from posexp.report.metric import PPL, Measure
from posexp.report.tables import Table, tables
from posexp.storage import atomic, untrusted
from posexp.storage.jsonl import MOST_COLUMNS

if TYPE_CHECKING:
    from rich.console import Console

    from posexp.evaluation.verdicts import Pairs

MOST_TABLES, MOST_CURVES = 500, 500
SOMETIMES = {f"{name}.{kind}" for name in ("others", "ranking") for kind in ("png", "svg")}

__all__ = ["COLUMNS", "Cell", "Table", "tables", "write"]


def write_report(
    rows: list[Row],
    curve_of: dict[str, str],
    folder: Path,
    console: "Console | None" = None,
    *,
    measure: Measure = PPL,
    pairs: "Pairs | None" = None,
    say: Callable[[str], None] = lambda line: None,
    all_sets: bool = False,
    page: Callable[[list[Table]], str] | None = None,
) -> list[Path]:
    """Writes rows.csv, verdicts.csv, table.md, table.tex, curves.png and .svg of the headline into `folder`; others.png
    and .svg of other sets of targets and protocols, ranking.png and .svg where the headline's curves are too many to
    follow, and page.html where `page` makes one of the tables. Prints the answer, the headline and a line for each
    other table, or with `all_sets` all of them; returns the paths.

    `curve_of` maps run folder names to curve labels; `pairs` has the verdicts, and `say` receives
    the reasons for missing ones.
    The same input gives the same bytes. Raises Misuse without rows, or where none has `measure`; RunFailed where
    `folder` cannot be written.
    """
    if not rows:
        raise Misuse("nothing to report: these runs have no eval rows; run posexp eval first")
    from rich.console import Console
    from rich.text import Text

    from posexp.output.style import looks_of
    from posexp.report import change, ranking, verdict_table
    from posexp.report.curves import pictures
    from posexp.report.latex import latex
    from posexp.report.table import print_tables, report_markdown

    console = console or Console()
    verdicts = pairs.verdicts(say) if pairs else []
    found = tables(rows, curve_of, measure, verdicts, pairs.changes() if pairs else None)
    check_size(found)
    shown = [table for table in found if not table.lacking]
    if not shown:
        raise Misuse(f"no row has {measure.axis}: choose another measure, or repeat the eval command")
    contents = {
        "rows.csv": rows_to_csv(rows).encode(),
        "verdicts.csv": verdict_table.verdicts_to_csv(verdicts).encode(),
        "table.md": report_markdown(shown).encode(),
        "table.tex": latex(shown).encode(),
    }
    look_of = looks_of(curve for table in shown for curve in table.curves)
    contents["curves.png"], contents["curves.svg"] = change.pictures(shown[0], look_of)
    if len(shown) > 1:
        contents["others.png"], contents["others.svg"] = pictures(shown[1:], look_of)
    if len(shown[0].curves) > ranking.FOLLOWED:
        contents["ranking.png"], contents["ranking.svg"] = ranking.pictures(shown[0])
    if page is not None:
        contents["page.html"] = page(shown).encode()
    try:
        untrusted.refuse_link(folder)
        atomic.write_all(folder, contents)
        for name in SOMETIMES - contents.keys():  # of another choice of runs
            (folder / name).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise RunFailed(f"cannot write the report into {folder}: {getattr(error, 'strerror', '') or error}") from error
    print_tables(shown, console, all_sets)
    for table in found:
        if table.lacking:
            console.print(Text(f"{table.protocol} is left out: its rows lack {measure.axis}"), soft_wrap=True)
    paths = [folder / name for name in contents]
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)
    return paths


def check_size(found: list[Table]) -> None:
    """Raises Misuse for more than anybody could read, or a picture could hold."""
    curves = {curve for table in found for curve in table.curves}
    if len(found) > MOST_TABLES or len(curves) > MOST_CURVES:
        raise Misuse(
            f"{len(found):,} tables of {len(curves):,} curves are more than a report holds ({MOST_TABLES} of "
            f"{MOST_CURVES}): choose runs with --runs, or leave other windows and transforms out with variants=false"
        )


def rows_to_csv(rows: list[Row]) -> str:
    """COLUMNS, then other keys in the order they appear; None is an empty field.

    A field is what its row holds, whatever a spreadsheet may make of one that begins with "=". Raises Misuse for more
    columns than a row may have.
    """
    extras = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in COLUMNS]
    if len(extras) > MOST_COLUMNS:
        raise Misuse(f"the rows have {len(extras):,} columns that posexp does not know: choose runs with --runs")
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *extras], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
