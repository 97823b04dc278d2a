"""What a run says: metrics.jsonl first, then train.log, the terminal and wandb, which are copies."""

import time
from types import TracebackType
from typing import Any

from posexp.config.commands import TrainCommand
from posexp.config.values import plain_value
from posexp.output.console import clock, progress, say
from posexp.runs.run import Run
from posexp.runs.wandb import Wandb
from posexp.storage import atomic, jsonl


class Log:
    """The log of one training run.

    Training rows go to metrics.jsonl as they come. A terminal shows a progress bar; anything else, and
    train.log, gets a plain line every `seconds_between_lines`.
    """

    seconds_between_lines = 10.0

    def __init__(self, run: Run, config: TrainCommand, step: int):
        self.run, self.steps, self.batch_tokens = run, config.train.steps, config.train.batch_tokens
        rows = run.history(self.note)
        # What a killed process wrote past its last checkpoint is about to be computed again.
        jsonl.rewrite(run.metrics, [row for row in rows if (row.get("step") or 0) <= step])
        self.started, self.first_step = time.monotonic(), step
        self.last_line = self.last_row = self.started
        self.last_step = step
        self.wandb = Wandb(run, config.wandb, plain_value(config), config.group, config.label)
        self.bar = progress(run.name, self.steps, done=step, lines=False)

    def __enter__(self) -> "Log":
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__()
        self.wandb.finish()

    def note(self, line: str) -> None:
        """A line for the terminal and for train.log."""
        say(f"{self.run.name}: {line}")
        self.to_file(line)

    def to_file(self, line: str) -> None:
        path = self.run.folder / "train.log"
        with atomic.named(path), path.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def status(self, status: str, step: int, **details: Any) -> None:
        """A change of the run's state, e.g. running, done, stopped or failed with its reason."""
        jsonl.append(self.run.metrics, {"step": step, "status": status, "time": round(time.time(), 3), **details})

    def train(self, step: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        """One training row: mean loss (nats per token) since the last row, after `step` steps."""
        now = time.monotonic()
        speed = (step - self.last_step) * self.batch_tokens / max(now - self.last_row, 1e-9)
        self.last_row, self.last_step = now, step
        row = {
            "step": step,
            "tokens": step * self.batch_tokens,
            "loss": loss,
            "lr": learning_rate,
            "grad_norm": grad_norm,
            "tokens_per_second": round(speed),
            "time": round(time.time(), 3),
        }
        jsonl.append(self.run.metrics, row)
        self.wandb.log({f"train/{key}": value for key, value in row.items() if key != "time"})
        left = (self.steps - step) * (now - self.started) / max(step - self.first_step, 1)
        self.bar.update(step, f"loss {loss:.3f}  {speed:,.0f} tokens/s  ETA {clock(left)}")
        if now - self.last_line > self.seconds_between_lines or step == self.steps:
            self.last_line = now
            line = f"step {step}/{self.steps}  loss {loss:.4f}  {speed:,.0f} tokens/s  ETA {clock(left)}"
            self.to_file(line)
            if not self.bar.visible:
                say(f"{self.run.name}: {line}")


class NoLog:
    """The log of a process that leaves it to another one."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def status(self, status: str, step: int, **details: Any) -> None:
        pass

    def train(self, step: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        pass
