"""The loggers that a command names. The error of one is said once, and the work goes on without it."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from posexp.config.sections import LoggerName, WandbConfig, WandbMode
from posexp.errors import Misuse
from posexp.runs.logger import TRAINING, Evaluation, Logged, Logger, say_once, shown
from posexp.runs.wandb import Wandb
from posexp.storage import atomic

COLUMNS = ("step", *(f"train/{name}" for name in TRAINING), "valid/loss")  # of train.csv


class CsvFiles(Logger):
    """Two files in the folder of the run. train.csv has a line per step that this process logs, rows.csv all rows."""

    def __init__(self, about: Logged):
        self.folder, self.begun = about.folder, False

    def train(self, step: int, values: dict[str, float]) -> None:
        path = self.folder / "train.csv"
        with atomic.naming(path), path.open("a" if self.begun else "w", newline="") as file:
            lines = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if not self.begun:
                lines.writeheader()
            lines.writerow({"step": step, **values})
        self.begun = True

    def evaluation(self, found: Evaluation) -> None:
        atomic.write_file(self.folder / "rows.csv", found.csv)


class TensorBoard(Logger):
    """Files of events in tensorboard/train, by step, and tensorboard/eval, by length.

    A folder is emptied when its first value is logged.
    """

    def __init__(self, about: Logged):
        self.about, self.writers = about, dict[str, Any]()

    def writer(self, axis: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        if axis not in self.writers:
            folder = self.about.folder / "tensorboard" / axis
            for earlier in folder.glob("events.out.tfevents.*"):
                earlier.unlink()
            self.writers[axis] = SummaryWriter(str(folder), flush_secs=10)
            text = json.dumps(self.about.config, indent=1, default=str)
            self.writers[axis].add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        return self.writers[axis]

    def train(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer("train").add_scalar(name, value, step)

    def evaluation(self, found: Evaluation) -> None:
        for length, values in found.curves:
            for name, value in values.items():
                self.writer("eval").add_scalar(name, value, length)

    def figure(self, path: Path) -> None:
        from matplotlib.image import imread

        self.writer("report").add_image(path.stem, imread(path), dataformats="HWC")

    def finish(self) -> None:
        for writer in self.writers.values():
            writer.close()


class Loggers(Logger):
    """The loggers `names` as one, open from the construction to the end of the `with` block."""

    def __init__(self, names: list[LoggerName], wandb: WandbConfig, about: Callable[[], Logged]):
        self.opened: dict[LoggerName, Logger] = {}
        for name in dict.fromkeys(names):
            if name is not LoggerName.wandb or wandb.mode is not WandbMode.disabled:
                with self.guarded(name):
                    self.opened[name] = open_logger(name, wandb, about())

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def train(self, step: int, values: dict[str, float]) -> None:
        self.each("train", step, values)

    def evaluation(self, found: Evaluation) -> None:
        self.each("evaluation", found)

    def figure(self, path: Path) -> None:
        self.each("figure", path)

    def finish(self) -> None:
        self.each("finish")
        self.opened.clear()

    def row(self, row: dict[str, Any]) -> None:
        """Log a row of metrics.jsonl, if it has a loss of training or of validation."""
        if row.get("loss") is not None:
            self.train(row["step"], {f"train/{name}": row[name] for name in TRAINING if row.get(name) is not None})
        elif row.get("valid_loss") is not None:
            self.train(row["step"], {"valid/loss": row["valid_loss"]})

    def each(self, method: str, *values: Any) -> None:
        for name, logger in list(self.opened.items()):
            with self.guarded(name):
                getattr(logger, method)(*values)

    @contextmanager
    def guarded(self, name: LoggerName) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if (logger := self.opened.pop(name, None)) is not None:
                logger.abandon(error)
            say_once(f"{name.value} is skipped; metrics.jsonl and rows.jsonl have everything ({shown(error)})")


def open_logger(name: LoggerName, wandb: WandbConfig, about: Logged) -> Logger:
    if name is LoggerName.wandb:
        return Wandb(wandb, about)
    return TensorBoard(about) if name is LoggerName.tensorboard else CsvFiles(about)


def check_loggers(names: list[LoggerName]) -> None:
    """Raise Misuse if a logger is not installed."""
    if LoggerName.tensorboard in names and find_spec("tensorboard") is None:
        raise Misuse("loggers=[tensorboard] needs TensorBoard: pip install 'posexp[tensorboard]'")
