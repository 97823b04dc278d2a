"""The report of a group: its eval rows as CSV files, tables, pictures and a page."""

from collections.abc import Callable, Sequence
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
    from posexp.report.change import Reference
    from posexp.report.fairness import Fairness

MAX_TABLES, MAX_CURVES = 500, 500

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
    fairness: "Fairness | None" = None,
    subject: str = "",
    references: "Sequence[Reference]" = (),
) -> list[Path]:
    """Write the report into `folder`, print it and return the paths of its files.

    The files are rows.csv, verdicts.csv, table.md, table.tex and the pictures of `pictures.draw`, with the titles of
    `subject` and the curves of `references`. `page` renders the tables as page.html.
    Prints the answer, the headline, and one line for each other table, or with `all_sets` all tables and `fairness`.
    The latter is a section of table.md.

    `curve_of` maps run folder names to curve labels. `pairs` has the verdicts, and `say` receives the reasons for
    missing ones. Equal input gives equal bytes. Raises Misuse if there are no rows or none has `measure`, and RunFailed
    if `folder` cannot be written.
    """
    if not rows:
        raise Misuse("nothing to report: these runs have no eval rows; first run posexp eval")
    from rich.console import Console
    from rich.text import Text

    from posexp.report import option_sweep, pictures, verdict_table
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
    sweep = option_sweep.find_sweep(shown[0])
    if sweep:
        contents["table.md"] += option_sweep.sweep_markdown(sweep).encode()
    if fairness:
        contents["table.md"] += fairness.markdown().encode()
    contents |= pictures.draw(shown, pairs, sweep, subject, references)
    if page is not None:
        contents["page.html"] = page(shown).encode()
    try:
        untrusted.refuse_link(folder)
        atomic.write_all(folder, contents)
        for name in pictures.FILES - contents.keys():  # files of an earlier report
            (folder / name).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise RunFailed(f"cannot write the report into {folder}: {getattr(error, 'strerror', '') or error}") from error
    print_tables(shown, console, all_sets)
    if sweep:
        option_sweep.print_sweep(sweep, console)
    if fairness and all_sets:
        fairness.show(console)
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
