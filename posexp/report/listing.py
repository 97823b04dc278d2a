"""The posexp schemes and posexp runs commands, which list components and runs."""

import sys
from collections import Counter
from pathlib import Path
from shutil import get_terminal_size
from textwrap import shorten, wrap
from time import localtime, strftime
from typing import Any

from rich.text import Text

from posexp.config.commands import RunsCommand, SchemesCommand
from posexp.config.components import choices
from posexp.errors import Misuse, PosexpError, did_you_mean
from posexp.jobs.slurm import Queue, queue
from posexp.output.console import clock, console, say
from posexp.output.grid import print_grid
from posexp.runs.run import Run, find_runs, groups
from posexp.runs.status import Cell, cell
from posexp.runs.verify import verify_runs
from posexp.storage.untrusted import visible

MAX_LENGTHS = 40  # in the column of measured lengths
KINDS = {
    "scheme": "Positional schemes: +scheme=<name>",
    "window": "Windows, in training and evaluation: window=<name>",
    "transform": "Transforms, at evaluation: +transform=<name>",
    "model": "Models: model=<name>",
}


def print_schemes(command: SchemesCommand) -> None:
    """Print one line for each scheme, window, transform and model, or all details of those in `command.names`.

    Raises Misuse if a name is unknown.
    """
    screen = console()
    there = {kind: choices(kind) for kind in KINDS}
    if not command.names:
        for kind, title in KINDS.items():
            width = max(len(path.stem) for path in there[kind])
            screen.print(Text(title, style="bold"))
            for path in there[kind]:
                screen.print(Text(f"  {path.stem:<{width}}  {fitted(about(path), screen.width - width - 4)}"))
        screen.print(Text("posexp schemes <name> … prints the options of each"))
        return
    every = list(dict.fromkeys(path.stem for paths in there.values() for path in paths))
    for name in command.names:
        if name not in every:
            raise Misuse(f"nothing is called {name!r}{did_you_mean(name, every)}; posexp schemes lists all")
        for kind, paths in there.items():
            for path in paths:
                if path.stem == name:
                    known = {"description": about(path), **details(kind, path)}
                    print_grid("", (kind, name), [[key, value] for key, value in known.items() if value], screen)


def fitted(text: str, width: int) -> str:
    """Shorten `text` to `width`: drop its last parts, which are sources, then words."""
    parts = text.split(" · ")
    whole = [joined for n in range(len(parts), 0, -1) if len(joined := " · ".join(parts[:n])) <= width]
    return whole[0] if whole else shorten(parts[0], width, placeholder=" …")


def details(kind: str, path: Path) -> dict[str, str]:
    """Return the options with their defaults, and the hooks and promises of a scheme."""
    from posexp.config.components import read_options
    from posexp.dims import Dims
    from posexp.schemes import from_config

    node = read_options(path)
    if kind != "scheme":
        return {"options": options_of(node)}
    scheme = from_config(node, Dims(d_model=128, n_head=4, n_layer=2, train_length=128))
    promises = {
        "relative": scheme.relative,
        "no positions": not scheme.reads_positions,
        "not prefix-stable": not scheme.prefix_stable,
        f"ends at {scheme.max_length} if trained at 128": scheme.max_length is not None,
    }
    return {
        "hooks": ", ".join(hooks_of(scheme)),
        "promises": ", ".join(name for name, true in promises.items() if true),
        "options": options_of(node),
    }


def about(path: Path) -> str:
    """Return the first comment of a YAML file."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
    return comments[0].removeprefix("# ") if comments else ""


def options_of(node: dict[str, Any]) -> str:
    """Return the options with their defaults. Nested components are shown by class name."""
    shown = {
        key: value["_target_"].rpartition(".")[2] if isinstance(value, dict) else value for key, value in node.items()
    }
    return ", ".join(f"{key}={value}" for key, value in shown.items() if key != "_target_")


def hooks_of(scheme: Any) -> list[str]:
    """Return the hooks that a scheme or the scheme of its first block overrides."""
    from posexp.schemes import Scheme

    hooks = ("positions", "embed", "rotate", "distance_bias", "bias", "attend", "layer")
    parts = (scheme, scheme.layer(0))
    return [hook for hook in hooks if any(getattr(type(part), hook) is not getattr(Scheme, hook) for part in parts)]


def print_runs(command: RunsCommand) -> None:
    """Print state and progress of every run, and for failed ones the reason and the path of the log.

    With `verify`, check the files of every run instead. Raises Misuse if there are no runs, RunFailed if files are
    damaged.
    """
    names = groups(command.results, command.group)
    if not names:
        raise Misuse(f"no runs in {command.results}/{command.group}. Train one: posexp train +scheme=<name>")
    if command.verify:
        verify_runs([run for group in names for run in find_runs(command.results, group)])
        return
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    for group in names:
        found = find_runs(command.results, group)
        jobs = queue([run.folder for run in found], say)
        cells = [cell_or_damaged(run, jobs) for run in found]
        counts = Counter(cell.state for cell in cells)
        print(f"{group}: {len(cells)} runs, {', '.join(f'{count} {state}' for state, count in counts.most_common())}")
        print("\n".join(lines_of(cells, width)), end="\n\n")


def cell_or_damaged(run: Run, jobs: Queue | None) -> Cell:
    try:
        return cell(run, jobs, say)
    except PosexpError as error:
        say(str(error))
        return Cell(run, "damaged")


def lines_of(cells: list[Cell], width: int | None) -> list[str]:
    """Return the lines of a table of runs. The last columns are dropped if all do not fit into `width`."""
    rows = [row_of(each) for each in cells]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    sizes = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    while width is not None and len(columns) > 2 and sum(sizes[name] + 2 for name in columns) - 2 > width:
        columns.pop()
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    shown = [visible("  ".join(f"{line[name]:{sizes[name]}}" for name in columns).rstrip()) for line in lines]
    found = shown[:1]
    for each, line in zip(cells, shown[1:], strict=True):
        found.append(line)
        notes = [each.why, f"log: {each.log}" if each.state in {"failed", "interrupted"} and each.log else ""]
        found += [
            f"    {part}"
            for note in map(visible, filter(None, notes))
            for part in wrap(note, max(width or 10_000, 40) - 4, break_long_words=False, break_on_hyphens=False)
        ]
    return found


def row_of(cell: Cell) -> dict[str, str]:
    """Return the columns of a run, the most important first."""
    from posexp.evaluation.rows import read_rows

    lengths = sorted({row["length"] for row in read_rows(cell.run, say) if row["protocol"] != "per_position"})
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
