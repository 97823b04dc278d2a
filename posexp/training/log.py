"""What a run says: metrics.jsonl first, then train.log, the terminal and the loggers, which are copies."""

import time
from contextlib import ExitStack
from typing import Any

from posexp.config.commands import TrainCommand
from posexp.output.console import clock, progress, say
from posexp.runs.loggers import Loggers
from posexp.runs.run import Run
from posexp.storage import atomic, jsonl


class Log(ExitStack):
    """The log of one training run, from `with` to the end of the block.

    Training rows go to metrics.jsonl as they come. A terminal shows a progress bar; anything else, and
    train.log, gets a plain line every `seconds_between_lines`.
    """

    seconds_between_lines = 10.0

    def __init__(self, run: Run, config: TrainCommand, step: int, loggers: Loggers):
        super().__init__()
        self.run, self.loggers = run, loggers
        self.steps, self.batch_tokens = config.train.steps, config.train.batch_tokens
        # What a killed process wrote past its last checkpoint is about to be computed again.
        rows = [row for row in run.history(self.note) if (row.get("step") or 0) <= step]
        jsonl.rewrite(run.metrics, rows)
        for row in rows:
            loggers.row(row)
        self.valid = ""  # the latest validation loss
        self.started, self.first_step = time.monotonic(), step
        self.last_line = self.last_row = self.started
        self.last_step = step
        self.bar = self.enter_context(progress(run.name, self.steps, done=step, lines=False))

    def note(self, line: str) -> None:
        """A line for the terminal and for train.log."""
        say(f"{self.run.name}: {line}")
        self.to_file(line)

    def to_file(self, line: str) -> None:
        path = self.run.folder / "train.log"
        with atomic.naming(path), path.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def status(self, status: str, step: int, **details: Any) -> None:
        """A change of the run's state, e.g. running, done, stopped or failed with its reason."""
        self.run.record(step, status=status, **details)

    def train(self, step: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        """One training row: mean loss (nats per token) since the last row, after `step` steps."""
        now = time.monotonic()
        speed = (step - self.last_step) * self.batch_tokens / max(now - self.last_row, 1e-9)
        self.last_row, self.last_step = now, step
        self.record(step, loss=loss, lr=learning_rate, grad_norm=grad_norm, tokens_per_second=round(speed))
        left = (self.steps - step) * (now - self.started) / max(step - self.first_step, 1)
        self.bar.update(step, f"loss {loss:.3f}{self.valid}  {speed:,.0f} tokens/s  ETA {clock(left)}")
        if now - self.last_line > self.seconds_between_lines or step == self.steps:
            self.last_line = now
            line = f"step {step}/{self.steps}  loss {loss:.4f}{self.valid}  {speed:,.0f} tokens/s  ETA {clock(left)}"
            self.to_file(line)
            if not self.bar.visible:
                say(f"{self.run.name}: {line}")

    def validation(self, step: int, loss: float, seconds: float) -> None:
        """One validation row: the loss on validation text (nats per token), which took `seconds` to measure."""
        self.last_row += seconds  # the speed is that of training
        self.valid = f"  valid {loss:.3f}"
        self.record(step, valid_loss=loss)
        self.to_file(f"step {step}/{self.steps}  validation loss {loss:.4f}")

    def record(self, step: int, **values: float) -> None:
        row = {"tokens": step * self.batch_tokens, **values}
        self.run.record(step, **row)
        self.loggers.row({"step": step, **row})


class NoLog(ExitStack):
    """The log of a process that leaves it to another one."""

    def note(self, *_: object, **__: object) -> None:
        pass

    status = train = validation = note
