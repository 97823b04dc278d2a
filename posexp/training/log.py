"""What a run says: metrics.jsonl first, then train.log, the terminal and wandb, which are copies."""

import time
from contextlib import ExitStack
from typing import Any

from posexp.config.commands import TrainCommand
from posexp.config.values import plain_value
from posexp.output.console import clock, progress, say
from posexp.runs.run import Run
from posexp.runs.wandb import Wandb
from posexp.storage import atomic, jsonl


class Log(ExitStack):
    """The log of one training run, from `with` to the end of the block.

    Training rows go to metrics.jsonl as they come. A terminal shows a progress bar; anything else, and
    train.log, gets a plain line every `seconds_between_lines`.
    """

    seconds_between_lines = 10.0

    def __init__(self, run: Run, config: TrainCommand, step: int):
        super().__init__()
        self.run, self.steps, self.batch_tokens = run, config.train.steps, config.train.batch_tokens
        rows = run.history(self.note)
        # What a killed process wrote past its last checkpoint is about to be computed again.
        jsonl.rewrite(run.metrics, [row for row in rows if (row.get("step") or 0) <= step])
        self.started, self.first_step = time.monotonic(), step
        self.last_line = self.last_row = self.started
        self.last_step = step
        self.wandb = Wandb(run, config.wandb, plain_value(config), config.group, config.label)
        self.callback(self.wandb.finish)
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
        row = {"tokens": step * self.batch_tokens, "loss": loss, "lr": learning_rate, "grad_norm": grad_norm}
        row |= {"tokens_per_second": round(speed)}
        self.run.record(step, **row)
        self.wandb.log({f"train/{key}": value for key, value in {"step": step, **row}.items()})
        left = (self.steps - step) * (now - self.started) / max(step - self.first_step, 1)
        self.bar.update(step, f"loss {loss:.3f}  {speed:,.0f} tokens/s  ETA {clock(left)}")
        if now - self.last_line > self.seconds_between_lines or step == self.steps:
            self.last_line = now
            line = f"step {step}/{self.steps}  loss {loss:.4f}  {speed:,.0f} tokens/s  ETA {clock(left)}"
            self.to_file(line)
            if not self.bar.visible:
                say(f"{self.run.name}: {line}")


class NoLog(ExitStack):
    """The log of a process that leaves it to another one."""

    def note(self, *_: object, **__: object) -> None:
        pass

    status = train = note
