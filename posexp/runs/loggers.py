"""The loggers that a command names. The error of one is said once, and the work goes on without it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from posexp.config.sections import LoggerName, WandbConfig, WandbMode
from posexp.errors import Misuse
from posexp.runs.csv_files import CsvFiles
from posexp.runs.logger import TRAINING, Evaluation, Logged, Logger, say_once, shown
from posexp.runs.tensorboard import TensorBoard
from posexp.runs.wandb import Wandb


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
