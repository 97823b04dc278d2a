"""What is equal over the curves of a group and what is not: sizes, budgets, learning rates, constants, time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from posexp.config.sections import TrainConfig
from posexp.config.values import plain_value
from posexp.errors import RunFailed
from posexp.evaluation.rows import Row
from posexp.output.grid import Grid
from posexp.output.text import escape, one_line
from posexp.runs.run import Run

if TYPE_CHECKING:
    from rich.console import Console

TITLE = "Fairness"
TIME = "training time per token, × fastest"
MEASURED = (
    "Training time: the median of the log of the fastest completed seed. Runs that share a machine slow each other "
    "down; posexp bench measures schemes in turns."
)
SEVERAL = "Training times are not compared, because the runs are of several devices."
# What the comparison of two curves depends on: options of the section train, and parameters in the provenance.
OPTIONS = {
    "length": "training length",
    "tokens": "tokens",
    "batch_tokens": "tokens per step",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "scheme_lr": "the scheme's multiple of it",
    "weight_decay": "weight decay",
    "scheme_weight_decay": "weight decay of the scheme",
    "warmup": "warm-up",
    "clip": "clipping",
    "precision": "precision",
}
STEPS, PARAMETERS = "steps", {"total": "parameters", "scheme": "parameters of the scheme"}


@dataclass(frozen=True)
class Facts:
    """The facts of one run. `speed` is in tokens per second, None unless the run is completed."""

    values: dict[str, str]
    notes: tuple[str, ...]
    speed: float | None
    device: str


@dataclass(frozen=True)
class Fairness:
    """The comparison: a table of what differs, one row per curve, and sentences."""

    grid: Grid
    sentences: tuple[str, ...]

    def show(self, console: "Console") -> None:
        from rich.text import Text

        self.grid.show(console)
        for sentence in self.sentences:
            console.print(Text(sentence, style="dim"))

    def markdown(self) -> str:
        sentences = "\n".join(f"- {escape(sentence)}" for sentence in self.sentences)
        return f"\n## {TITLE}\n\n{self.grid.markdown()}\n\n{sentences}\n"


def fairness_of(
    rows: list[Row], runs: list[Run], curve_of: dict[str, str], say: Callable[[str], None]
) -> Fairness | None:
    """Return the comparison of the trained curves of a group; None for fewer than two. `say` receives damaged runs."""
    longest = max((row.length for row in rows), default=0)
    found: dict[str, list[Facts]] = {}
    for run in runs:
        if run.foreign or run.name not in curve_of:
            continue
        try:
            facts = facts_of(run, longest)
        except RunFailed as error:
            say(f"{error}; the run is skipped")
        else:
            found.setdefault(curve_of[run.name], []).append(facts)
    return compared(found) if len(found) > 1 else None


def facts_of(run: Run, longest: int) -> Facts:
    """Return the facts of a run. `longest` is the longest evaluated length. Raises RunFailed if it cannot be read."""
    train = plain_value(TrainConfig()) | run.section("train")
    scheme, about, history = run.section("scheme"), run.provenance(), run.history(lambda line: None)
    sizes = about.get("parameters")
    sizes = sizes if isinstance(sizes, dict) else {}
    values = {title: written(train[name]) for name, title in OPTIONS.items()}
    if is_number(train["tokens"]) and is_number(train["batch_tokens"]) and train["batch_tokens"] > 0:
        values[STEPS] = written(int(-(-train["tokens"] // train["batch_tokens"])))
    values |= {title: written(sizes[name]) for name, title in PARAMETERS.items() if name in sizes}
    recorded = about.get("scheme_notes")
    notes = [one_line(note) for note in recorded if isinstance(note, str)] if isinstance(recorded, list) else []
    factor = scheme.get("factor")
    if is_number(factor) and is_number(train["length"]) and factor * train["length"] == longest:
        notes.append(f"factor={factor:g} is exactly the longest evaluated length, {longest} tokens")
    done = any(row.get("status") == "done" for row in history)
    speeds = [row["tokens_per_second"] for row in history if row.get("tokens_per_second")]
    return Facts(values, tuple(notes), median(speeds) if done and speeds else None, one_line(str(about.get("device"))))


def compared(found: Mapping[str, list[Facts]]) -> Fairness:
    titles = dict.fromkeys(title for facts in found.values() for one in facts for title in one.values)
    cells = {
        title: {
            curve: ", ".join(dict.fromkeys(one.values.get(title, "–") for one in facts))
            for curve, facts in found.items()
        }
        for title in titles
    }
    equal = [f"{title} {next(iter(of.values()))}" for title, of in cells.items() if len(set(of.values())) == 1]
    columns = {title: of for title, of in cells.items() if len(set(of.values())) > 1}
    columns["seeds"] = {curve: str(len(facts)) for curve, facts in found.items()}
    speeds = {curve: [one.speed for one in facts if one.speed] for curve, facts in found.items()}
    sentences = [f"Equal for all curves: {', '.join(equal)}."] if equal else []
    if len({one.device for facts in found.values() for one in facts}) > 1:
        sentences.append(SEVERAL)
    elif any(speeds.values()):
        fastest = max(max(of) for of in speeds.values() if of)
        columns[TIME] = {curve: f"{fastest / max(of):.2f}" if of else "–" for curve, of in speeds.items()}
        sentences.append(MEASURED)
    rows = [[one_line(curve), *(of[curve] for of in columns.values())] for curve in sorted(found)]
    return Fairness(Grid(["curve", *columns], rows, title=TITLE), (*sentences, *noted(found)))


def noted(found: Mapping[str, list[Facts]]) -> list[str]:
    """Return a sentence per note, with the curves that have it."""
    curves: dict[str, dict[str, None]] = {}
    for curve in sorted(found):
        for note in (note for one in found[curve] for note in one.notes):
            curves.setdefault(note, {})[one_line(curve)] = None
    return [f"{', '.join(names)}: {note}." for note, names in curves.items()]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def written(value: Any) -> str:
    """Return a value as text: 1,000,000, 0.003, yes, bfloat16."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))
