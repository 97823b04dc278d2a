"""The work between two training steps: log rows, checkpoints, and the end on a signal or a bad loss."""

import signal
from contextlib import ExitStack, suppress
from types import TracebackType

import torch
from torch import Tensor

from posexp.errors import Diverged, RunFailed, Stopped
from posexp.jobs.signals import signals
from posexp.model.device import Graphs, describe
from posexp.runs import checkpoint
from posexp.training.log import Log, NoLog
from posexp.training.prepare import Training

LOG_EVERY = 10  # steps per training row


class Lifecycle:
    """The log and signal handling of a run during training from `first_step` to the last step.

    Leaving the block without an error marks the run as done.
    """

    def __init__(self, training: Training, optimizer: torch.optim.Optimizer, first_step: int):
        self.training, self.run, self.config = training, training.run, training.config.train
        self.optimizer, self.first_step, self.counted = optimizer, first_step, 0
        self.log = Log(training.run, training.config, first_step) if training.ranks.first else NoLog()
        self.total = torch.zeros((), device=training.device)  # sum of the losses since the last row, in nats
        self.graphs = Graphs(first_step)

    def __enter__(self) -> "Lifecycle":
        with ExitStack() as stack:
            stack.enter_context(self.log)
            self.received = stack.enter_context(signals())
            about = {"device": describe(self.training.device), "precision": self.training.precision.value}
            self.log.status("running", self.first_step, **about, processes=self.training.ranks.place.size)
            size = self.training.model.parameter_counts()["total"]
            self.log.note(f"training from step {self.first_step} to {self.config.steps}, {size:,} parameters")
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.stack:
            if kind is None:
                self.training.model.scheme.progress(1.0)
                self.log.status("done", self.config.steps)

    def add(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch, in nats per token."""
        self.total += loss.detach()

    def after(self, done: int, norm: Tensor) -> None:
        """Write the log row and checkpoint due after `done` steps; `norm` is the gradient norm of the last step.

        Raises Diverged if loss or gradient is not finite, Stopped on a signal once the step is saved, RunFailed if the
        checkpoint cannot be written.
        """
        self.counted += 1
        signum = self.training.ranks.agreed(self.received)
        save = done % self.config.checkpoint_every == 0 or done == self.config.steps or signum > 0
        if done % LOG_EVERY == 0 or save:
            self.write_row(done, norm)
        if save:
            self.save(done)
        if signum and done < self.config.steps:
            self.log.status("stopped", done, reason=signal.Signals(signum).name)
            raise Stopped(f"{self.run.name}: stopped at step {done} and saved; the same command goes on", signum)

    def write_row(self, done: int, norm: Tensor) -> None:
        norm, total = checkpoint.full(norm), self.training.ranks.mean(self.total)
        mean = total.item() / self.counted
        if not torch.isfinite(total + norm):
            reason = f"the loss is no longer finite at step {done} (last mean {mean:g})"
            self.log.status("failed", done, reason=reason, diverged=True)
            raise Diverged(f"{self.run.name}: {reason}; try a lower train.lr")
        self.log.train(done, mean, self.optimizer.param_groups[0]["lr"], norm.item())
        if again := self.graphs.made_again(done):
            self.log.note(again)
        self.total.zero_()
        self.counted = 0

    def save(self, done: int) -> None:
        folder = self.run.folder / "checkpoint"
        try:
            checkpoint.save(folder, done, self.training.model, self.optimizer, self.training.ranks.first)
        except RunFailed as error:
            with suppress(OSError):  # the disk may be full for the log too
                self.log.status("failed", done, reason=str(error))
            raise
