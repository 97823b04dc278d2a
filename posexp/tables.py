"""posexp schemes and posexp runs: what there is, as tables."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posexp.commands import RunsCommand, SchemesCommand
from posexp.errors import Misuse, PosexpError
from posexp.log import clock, say
from posexp.runs import Run, find, groups

MOST_SHOWN = 40  # lengths


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
    """Every run folder: how far it is, its latest loss and speed, why it stopped.

    Raises Misuse if there is none.
    """
    names = groups(command.results, command.group)
    if not names:
        raise Misuse(f"no runs in {command.results}/{command.group}. Train one: posexp train +scheme=<name>")
    for group in names:
        table = Table("run", "status", "steps", "tokens", "loss", "tokens/s", "left", "lengths measured", title=group)
        for run in find(command.results, group):
            table.add_row(*map(Text, run_row(run)))
        console().print(table)


def run_row(run: Run) -> tuple[str, ...]:
    from posexp.evaluation.row import read

    try:
        lengths = sorted({row["length"] for row in read(run, say) if row["protocol"] != "per_position"})
        measured = ", ".join(map(str, lengths[:MOST_SHOWN])) + (" …" if len(lengths) > MOST_SHOWN else "")
        if run.foreign:
            return (run.name, run.status()["status"], *[""] * 5, measured)
        config, status = run.config(), run.status()
        losses = [row for row in run.history(say) if row.get("loss") is not None]
    except PosexpError as error:
        say(str(error))
        return (run.name, "damaged", *[""] * 6)
    latest: dict[str, Any] = losses[-1] if losses else {}
    step, speed = status.get("step", 0), latest.get("tokens_per_second")
    left = ""
    if status["status"] == "running" and speed:
        left = clock((config.train.steps - step) * config.train.batch_tokens / speed)
    words = status["status"] + (f": {status['reason']}" if status.get("reason") else "")
    return (
        run.name,
        words,
        f"{step}/{config.train.steps}",
        f"{step * config.train.batch_tokens:,}",
        f"{latest['loss']:.3f}" if latest else "",
        f"{speed:,}" if speed else "",
        left,
        measured,
    )


def console() -> Console:
    """A terminal's own width; enough for every column where the output goes to a file or a pipe."""
    from sys import stdout

    return Console() if stdout.isatty() else Console(width=200)
