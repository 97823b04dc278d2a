"""posexp schemes and posexp runs: what there is, as tables."""

import sys
from collections import Counter
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from time import localtime, strftime
from typing import Any

from rich.console import Console
from rich.table import Table

from posexp import jsonl
from posexp.cells import Cell, cell
from posexp.commands import RunsCommand, SchemesCommand
from posexp.errors import Misuse, PosexpError
from posexp.log import clock, say
from posexp.runs import Run, find, groups
from posexp.slurm import Queue, queue


def print_schemes(command: SchemesCommand) -> None:
    """Every scheme of configs/: its first comment, where it acts, what it promises, its options; then windows and
    transforms."""
    from posexp.parts import read_options
    from posexp.schemes import Dims, from_config

    table = Table("scheme", "what it is", "hooks", "promises", "options", title="Positional schemes")
    for path in choices("scheme"):
        node = read_options(path)
        scheme = from_config(node, Dims(d_model=128, n_head=4, n_layer=2, train_length=128))
        promises = {
            "relative": scheme.relative,
            "no positions": not scheme.reads_positions,
            "not prefix-stable": not scheme.prefix_stable,
            f"ends at {scheme.max_length} if trained at 128": scheme.max_length is not None,
        }
        holds = ", ".join(name for name, true in promises.items() if true)
        table.add_row(path.stem, about(path), ", ".join(hooks_of(scheme)), holds, options_of(node))
    console().print(table)
    for kind, title in (("window", "Windows, in training and evaluation"), ("transform", "Transforms, at evaluation")):
        table = Table(kind, "what it is", "options", title=title)
        for path in choices(kind):
            table.add_row(path.stem, about(path), options_of(read_options(path)))
        console().print(table)


def about(path: Path) -> str:
    return path.read_text().splitlines()[0].removeprefix("# ")


def options_of(node: dict[str, Any]) -> str:
    """Options and their defaults; of a part inside, the name of its class."""
    shown = {
        key: value["_target_"].rpartition(".")[2] if isinstance(value, dict) else value for key, value in node.items()
    }
    return ", ".join(f"{key}={value}" for key, value in shown.items() if key != "_target_")


def choices(kind: str) -> list[Path]:
    """The YAML files of one kind in posexp's configs, and in the user's own that --config-dir names, by name."""
    return sorted((path for folder in config_folders(kind) for path in folder.glob("*.yaml")), key=lambda p: p.stem)


def config_folders(kind: str) -> list[Path]:
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) / kind for source in sources if source.schema == "file"]


def scheme_folders() -> list[Path]:
    """scheme/ in posexp's configs, and in the user's own that --config-dir names."""
    return config_folders("scheme")


def hooks_of(scheme: Any) -> list[str]:
    """The hooks that a scheme overrides, or that those of its blocks do."""
    from posexp.schemes import Scheme

    hooks = ("positions", "embed", "rotate", "distance_bias", "bias", "attend", "layer")
    parts = (scheme, scheme.layer(0))
    return [hook for hook in hooks if any(getattr(type(part), hook) is not getattr(Scheme, hook) for part in parts)]


def print_runs(command: RunsCommand) -> None:
    """Every run folder: where it stands, how far it is, and of what went wrong why and where to read on.

    Raises Misuse if there is none.
    """
    names = groups(command.results, command.group)
    if not names:
        raise Misuse(f"no runs in {command.results}/{command.group}. Train one: posexp train +scheme=<name>")
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    for group in names:
        found = find(command.results, group)
        jobs = queue(found, say)
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
    """The cells as a table. In a terminal narrower than all columns it has the first ones, as far as they go."""
    rows = [row_of(each) for each in cells]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    sizes = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    while width is not None and len(columns) > 2 and sum(sizes[name] + 2 for name in columns) - 2 > width:
        columns.pop()
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    shown = [plain("  ".join(f"{line[name]:{sizes[name]}}" for name in columns).rstrip()) for line in lines]
    found = shown[:1]
    for each, line in zip(cells, shown[1:], strict=True):
        found.append(line)
        notes = [each.why, f"log: {each.log}" if each.state in {"failed", "interrupted"} and each.log else ""]
        found += [
            f"    {part}"
            for note in map(plain, filter(None, notes))
            for part in wrap(note, max(width or 10_000, 40) - 4, break_long_words=False, break_on_hyphens=False)
        ]
    return found


def plain(text: str) -> str:
    """Without what would move a terminal's cursor, or worse: reasons and names may be someone else's."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def row_of(cell: Cell) -> dict[str, str]:
    """The columns, the most wanted first."""
    lengths = sorted({row["length"] for row in jsonl.read(cell.run.rows, say) if row["protocol"] != "per_position"})
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
        "measured": ", ".join(map(str, lengths)),
    }


def console() -> Console:
    """A terminal's own width; enough for every column where the output goes to a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=200)
