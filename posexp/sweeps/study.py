"""A run as a trial of a study (hydra/sweeper=optuna) that minimises the loss at the training length.

The run folders are the storage of the study. The sampler is seeded, so a repeated study draws the same values, reuses
the losses of finished runs and trains the missing ones.
"""

import math

from posexp.config.commands import TrainCommand
from posexp.data.load import load_store
from posexp.errors import Diverged, Misuse
from posexp.evaluation.plan import own_lengths, plan
from posexp.evaluation.protocols import same_targets
from posexp.evaluation.rows import read_rows
from posexp.evaluation.targets import targets_hash, targets_of
from posexp.output.console import say
from posexp.runs.run import Run
from posexp.training.train import train


def trial(config: TrainCommand) -> float:
    """Return the validation loss of a run at its training length under same_targets, in nats per token.

    Trains the run unless it is done. The loss of a run that diverged is infinity. Raises Misuse before training if the
    evaluation of `config` does not measure this loss, and any other error of training.
    """
    run, wanted = Run.of(config), objective(config)
    status = run.status()
    if status.get("diverged"):
        say(f"{run.name}: {status['reason']}, in an earlier trial")
        return math.inf
    if status["status"] != "done" or loss(run, wanted) is None:
        try:
            train(config)
        except Diverged as error:
            say(f"{error}; the study goes on")
            return math.inf
    found = loss(run, wanted)
    assert found is not None, "training ends with this evaluation"
    say(f"{run.name}: loss {found:.4f} at {config.train.length} tokens")
    return found


def objective(config: TrainCommand) -> str:
    """Return the hash of the targets whose mean loss is minimised. Raises Misuse if they are not evaluated."""
    tokens = load_store(config.data, say).split(config.eval.split)
    lengths = own_lengths(tokens, config.train.length, config.eval)
    for row in plan(tokens, config.eval, lengths, config.train.length):
        if (row.protocol, row.length, row.control) == (same_targets.__name__, config.train.length, ""):
            return targets_hash(tokens, targets_of(row.windows)[0])
    raise Misuse(
        "a study minimises the loss at the training length under same_targets: "
        f"keep same_targets in eval.protocols and {config.train.length} in eval.lengths"
    )


def loss(run: Run, targets: str) -> float | None:
    """Return the loss of the trained model on these targets, or None if the run has no row of it."""
    found = None
    for row in read_rows(run, say):
        as_trained = row.window == row.trained_window and not row.transform and not row.control
        if row.targets_hash == targets and row.protocol == same_targets.__name__ and as_trained:
            found = math.inf if row.nll is None else row.nll
    return found
