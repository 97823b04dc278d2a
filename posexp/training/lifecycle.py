"""The work between two training steps: log rows, validation, checkpoints, and the end on a signal or a bad loss."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from posexp.errors import Diverged, RunFailed, Stopped
from posexp.jobs.signals import signals
from posexp.model.device import Graphs, compiled_graphs, describe
from posexp.runs import checkpoint
from posexp.training.log import Log, NoLog
from posexp.training.prepare import Training
from posexp.training.validation import Validation

LOG_EVERY = 10  # steps per training row


@contextmanager
def lifecycle(training: Training, optimizer: torch.optim.Optimizer, first_step: int) -> Iterator["Lifecycle"]:
    """Log and handle signals from `first_step` to the last step. The end of the block marks the run as done."""
    steps, size = training.config.train.steps, training.model.parameter_counts()["total"]
    log = Log(training.run, training.config, first_step, training.loggers) if training.loggers else NoLog()
    with log, signals() as received:
        about = {"device": describe(training.device), "precision": training.precision.value}
        log.status("running", first_step, **about, processes=training.ranks.place.size)
        log.note(f"training from step {first_step} to {steps}, {size:,} parameters")
        total = torch.zeros((), device=training.device)
        validation = Validation(training)
        if validation.why_not:
            log.note(f"no validation loss: {validation.why_not}")
        yield Lifecycle(training, optimizer, log, received, total, Graphs(first_step), validation)
        training.model.scheme.progress(1.0)
        log.status("done", steps)


@dataclass
class Lifecycle:
    """The work after each step.

    received: the numbers of the signals so far. total: the sum of the losses of `counted` steps, in nats.
    """

    training: Training
    optimizer: torch.optim.Optimizer
    log: Log | NoLog
    received: list[int]
    total: Tensor
    graphs: Graphs
    validation: Validation
    counted: int = 0

    def add(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch, in nats per token."""
        self.total += loss.detach()

    def step(self, done: int, norm: Tensor) -> None:
        """Write the log rows and checkpoint due after `done` steps; `norm` is the gradient norm of the last step.

        Raises Diverged if loss or gradient is not finite, Stopped on a signal once the step is saved, RunFailed if the
        checkpoint cannot be written.
        """
        self.counted += 1
        config, ranks = self.training.config.train, self.training.ranks
        signum = ranks.largest(self.received[0] if self.received else 0)  # the same in all processes
        save = done % config.checkpoint_every == 0 or done == config.steps or signum > 0
        if self.validation.due(done) and not signum:  # a stop does not wait for a validation
            self.validate(done)
        if done % LOG_EVERY == 0 or save:
            self.write_row(done, norm)
        if save:
            folder = self.training.run.folder / "checkpoint"
            try:
                checkpoint.save(folder, done, self.training.model, self.optimizer, ranks.first)
            except RunFailed as error:
                with suppress(OSError):  # the disk may be full for the log too
                    self.log.status("failed", done, reason=str(error))
                raise
        if signum and done < config.steps:
            self.log.status("stopped", done, reason=signal.Signals(signum).name)
            name = self.training.run.name
            raise Stopped(f"{name}: stopped at step {done} and saved; the same command goes on", signum)

    def validate(self, done: int) -> None:
        began = time.monotonic()
        loss = self.validation.loss()
        if math.isfinite(loss):  # else the training loss ends the run
            self.log.validation(done, loss, time.monotonic() - began)
        self.graphs.known = compiled_graphs()  # those of the first validation are not of training

    def write_row(self, done: int, norm: Tensor) -> None:
        norm, total = checkpoint.full(norm), self.training.ranks.mean(self.total)
        mean = total.item() / self.counted
        if not torch.isfinite(total + norm):
            reason = f"the loss is no longer finite at step {done} (last mean {mean:g})"
            self.log.status("failed", done, reason=reason, diverged=True)
            raise Diverged(f"{self.training.run.name}: {reason}; try a lower train.lr")
        self.log.train(done, mean, self.optimizer.param_groups[0]["lr"], norm.item())
        if again := self.graphs.made_again(done):
            self.log.note(again)
        self.total.zero_()
        self.counted = 0
