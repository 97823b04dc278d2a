"""A run as a trial of a study (hydra/sweeper=optuna): what is minimised is its loss at the training length.

The run folders are the study's memory. Its sampler has a seed, so a study that is repeated asks for the same values
again, is told the same losses by the runs that are done, and goes on where there is none.
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
    """Validation loss, nats per token, of the run that `config` describes, at its training length under same_targets.

    Trains the run unless that is done; infinity where its loss is no longer finite. Raises Misuse, before training, if
    the evaluation that `config` asks for does not measure this; and what training raises.
    """
    run, wanted = Run.of(config), objective(config)
    status = run.status()
    if status.get("diverged"):
        say(f"{run.name}: {status['reason']}, found before")
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
    """The hash of the targets whose mean loss counts."""
    tokens = load_store(config.data, say).split(config.eval.split)
    lengths = own_lengths(tokens, config.train.length, config.eval)
    for row in plan(tokens, config.eval, lengths, config.train.length):
        if (row.protocol, row.length, row.control) == (same_targets.__name__, config.train.length, ""):
            return targets_hash(tokens, targets_of(row.windows)[0])
    raise Misuse(
        "a study minimises the loss at the training length under same_targets, which this evaluation leaves out: keep "
        f"same_targets in eval.protocols and {config.train.length} in eval.lengths"
    )


def loss(run: Run, targets: str) -> float | None:
    """That of the trained model on these targets, if it is among the run's rows."""
    found = None
    for row in read_rows(run, say):
        as_trained = row["window"] == row["trained_window"] and not row["transform"] and not row["control"]
        if row["targets_hash"] == targets and row["protocol"] == same_targets.__name__ and as_trained:
            found = math.inf if row["nll"] is None else float(row["nll"])
    return found
