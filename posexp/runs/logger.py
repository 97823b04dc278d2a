"""The interface of a logger, which copies a run to where its user looks: wandb, TensorBoard or CSV files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from posexp.config.values import plain_value
from posexp.output.console import say
from posexp.runs.run import Run

TRAINING = ("tokens", "loss", "lr", "grad_norm", "tokens_per_second")  # columns of training rows in metrics.jsonl


@dataclass(frozen=True)
class Logged:
    """What a logger copies: one job (train, eval or report) on a run, or on a group.

    `config` is the configuration with the provenance, `label` the name that the seeds of a curve share.
    """

    folder: Path
    name: str
    job: str
    group: str
    label: str
    config: dict[str, Any]

    @property
    def id(self) -> str:
        """Return an id that every process of the job computes alike, so that wandb resumes its copy."""
        parts = [self.group, self.name, *([] if self.job == "train" else [self.job])]
        return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation has measured of a run.

    `rows`, at least one, have the same columns in the same order, and `csv` is the text of rows.csv. `curves` are
    (length, values by name): a name is the same for the same measurement of any run. `summary` has one value per name
    and length.
    """

    rows: list[dict[str, Any]]
    csv: str
    curves: list[tuple[int, dict[str, float]]]
    summary: dict[str, float | str]


class Logger(Protocol):
    """A copy that starts empty and gets everything: a resumed training run logs its earlier rows again.

    A logger has the methods that it can serve, and inherits the others.
    """

    def train(self, step: int, values: dict[str, float]) -> None:
        """Log values of training after `step` steps, such as train/loss or valid/loss."""

    def evaluation(self, found: Evaluation) -> None:
        """Log the evaluation of the run, whole each time."""

    def figure(self, path: Path) -> None:
        """Log a picture, a PNG file."""
        return None

    def finish(self) -> None:
        """Write what is pending."""
        return None

    def abandon(self, error: Exception) -> None:
        """Release what is open after an error."""
        return None


def logged_run(run: Run, job: str) -> Logged:
    """Describe a run. Raises RunFailed if its files are damaged, or are links, through which loggers would write."""
    run.refuse_links()
    group = run.folder.parent.name
    if run.foreign:
        config = run.about()
        label = str(config.get("name", run.name))
    else:
        stored = run.config()
        config, label = plain_value(stored) | {"provenance": run.provenance()}, stored.label
    return Logged(run.folder, run.name, job, group, label, config)


said: set[str] = set()  # in this process


def say_once(line: str) -> None:
    if line not in said:
        say(line)
    said.add(line)


def shown(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
