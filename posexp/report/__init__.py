"""The report of a group: its eval rows as CSV files, tables, pictures and a page."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from posexp.errors import Misuse, RunFailed
from posexp.evaluation.rows import COLUMNS, Row, rows_to_csv
from posexp.report.cell import Cell
from posexp.report.metric import PPL, Metric
from posexp.report.tables import Table, tables
from posexp.storage import atomic, untrusted

if TYPE_CHECKING:
    from rich.console import Console

    from posexp.evaluation.contrasts import Pairs

MAX_TABLES, MAX_CURVES = 500, 500
SOMETIMES = {f"{name}.{kind}" for name in ("others", "ranking", "sweep") for kind in ("png", "svg")}

__all__ = ["COLUMNS", "Cell", "Table", "tables", "write_report"]


def write_report(
    rows: list[Row],
    curve_of: dict[str, str],
    folder: Path,
    console: "Console | None" = None,
    *,
    measure: Metric = PPL,
    pairs: "Pairs | None" = None,
    say: Callable[[str], None] = lambda line: None,
    all_sets: bool = False,
    page: Callable[[list[Table]], str] | None = None,
) -> list[Path]:
    """Write the report into `folder`, print it and return the paths of its files.

    The files are rows.csv, verdicts.csv, table.md, table.tex, and curves.png and .svg of the headline table. If there
    are more tables, others.png and .svg show them. If the headline has too many curves to follow, ranking.png and .svg
    rank them. If curves differ in one numeric option, sweep.png and .svg show their loss against it. `page` renders
    the tables as page.html.
    Prints the answer, the headline, and one line for each other table, or with `all_sets` all tables.

    `curve_of` maps run folder names to curve labels. `pairs` has the verdicts, and `say` receives the reasons for
    missing ones. Equal input gives equal bytes. Raises Misuse if there are no rows or none has `measure`, and RunFailed
    if `folder` cannot be written.
    """
    if not rows:
        raise Misuse("nothing to report: these runs have no eval rows; first run posexp eval")
    from rich.console import Console
    from rich.text import Text

    from posexp.output.style import looks_of
    from posexp.report import change, option_sweep, ranking, verdict_table
    from posexp.report.curves import curve_pictures
    from posexp.report.table import print_tables, report_latex, report_markdown

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
        "table.tex": report_latex(shown).encode(),
    }
    look_of = looks_of(curve for table in shown for curve in table.curves)
    contents["curves.png"], contents["curves.svg"] = change.change_pictures(shown[0], look_of)
    if len(shown) > 1:
        contents["others.png"], contents["others.svg"] = curve_pictures(shown[1:], look_of)
    if len(shown[0].curves) > ranking.FOLLOWED:
        contents["ranking.png"], contents["ranking.svg"] = ranking.ranking_pictures(shown[0])
    if sweep := option_sweep.find_sweep(shown[0]):
        contents["table.md"] += option_sweep.sweep_markdown(sweep).encode()
        contents["sweep.png"], contents["sweep.svg"] = option_sweep.sweep_pictures(sweep)
    if page is not None:
        contents["page.html"] = page(shown).encode()
    try:
        untrusted.refuse_link(folder)
        atomic.write_all(folder, contents)
        for name in SOMETIMES - contents.keys():  # files of an earlier report
            (folder / name).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise RunFailed(f"cannot write the report into {folder}: {getattr(error, 'strerror', '') or error}") from error
    print_tables(shown, console, all_sets)
    if sweep:
        option_sweep.print_sweep(sweep, console)
    for table in found:
        if table.lacking:
            console.print(Text(f"{table.protocol} is skipped: its rows lack {measure.axis}"), soft_wrap=True)
    paths = [folder / name for name in contents]
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)
    return paths


def check_size(found: list[Table]) -> None:
    """Raise Misuse if there are too many tables or curves for a report."""
    curves = {curve for table in found for curve in table.curves}
    if len(found) > MAX_TABLES or len(curves) > MAX_CURVES:
        raise Misuse(
            f"{len(found):,} tables of {len(curves):,} curves exceed the limits of a report ({MAX_TABLES} of "
            f"{MAX_CURVES}): choose runs with --runs, or skip other windows and transforms with variants=false"
        )
