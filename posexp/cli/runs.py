"""The posexp runs command, which lists runs."""

import sys
from collections import Counter
from shutil import get_terminal_size
from textwrap import TextWrapper
from time import localtime, strftime

from posexp.config.commands import RunsCommand
from posexp.errors import Misuse, PosexpError
from posexp.jobs.slurm import Queue, queue
from posexp.output.console import clock, say
from posexp.runs.run import Run, find_runs, groups
from posexp.runs.status import RunStatus, run_status
from posexp.storage.untrusted import visible

MAX_LENGTHS = 40  # in the column of measured lengths


def print_runs(command: RunsCommand) -> None:
    """Print state and progress of every run, and why some failed; with `verify`, check the files of every run."""
    names = groups(command.results, command.group)
    if not names:
        raise Misuse(f"no runs in {command.results}/{command.group}. Train one: posexp train +scheme=<name>")
    if command.verify:
        from posexp.runs.verify import verify_runs

        verify_runs([run for group in names for run in find_runs(command.results, group)])
        return
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    for group in names:
        found = find_runs(command.results, group)
        jobs = queue([run.folder for run in found], say)
        cells = [cell_or_damaged(run, jobs) for run in found]
        counts = Counter(each.state for each in cells)
        print(f"{group}: {len(cells)} runs, {', '.join(f'{count} {state}' for state, count in counts.most_common())}")
        print("\n".join(lines_of(cells, width)), end="\n\n")


def cell_or_damaged(run: Run, jobs: Queue | None) -> RunStatus:
    try:
        return run_status(run, jobs, say)
    except PosexpError as error:
        say(str(error))
        return RunStatus(run, "damaged")


def lines_of(cells: list[RunStatus], width: int | None) -> list[str]:
    """Return the lines of a table of runs. The last columns are dropped if all do not fit into `width`."""
    rows = [row_of(each) for each in cells]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    sizes = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    while width is not None and len(columns) > 2 and sum(sizes[name] + 2 for name in columns) - 2 > width:
        columns.pop()
    indented = TextWrapper(max(width or 10_000, 40), break_long_words=False, break_on_hyphens=False)
    indented.initial_indent = indented.subsequent_indent = "    "
    heads = dict(zip(columns, columns, strict=True))
    head, *shown = ("  ".join(f"{line[name]:{sizes[name]}}" for name in columns).rstrip() for line in (heads, *rows))
    found = [head]
    for each, line in zip(cells, map(visible, shown), strict=True):
        log = f"log: {each.log}" if each.state in {"failed", "interrupted"} and each.log else ""
        found += [line, *indented.wrap(visible(each.why)), *indented.wrap(visible(log))]
    return found


def row_of(cell: RunStatus) -> dict[str, str]:
    """Return the columns of a run, the most important first."""
    from posexp.evaluation.rows import read_rows

    lengths = sorted({row.length for row in read_rows(cell.run, say) if row.protocol != "per_position"})
    return {
        "run": cell.run.name,
        "state": cell.state,
        "steps": f"{cell.step}/{cell.steps}" if cell.steps else "",
        "left": clock(cell.left) if cell.left is not None else "",
        "tokens/s": f"{cell.speed:,}" if cell.speed else "",
        "loss": f"{cell.loss:.3f}" if cell.loss is not None else "",
        "job": cell.job,
        "host": cell.host,
        "since": strftime("%m-%d %H:%M:%S", localtime(cell.since)) if cell.since else "",
        "measured": ", ".join(map(str, lengths[:MAX_LENGTHS])) + (" …" if len(lengths) > MAX_LENGTHS else ""),
    }
