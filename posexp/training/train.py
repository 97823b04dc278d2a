"""The command posexp train: short sequences, a budget in tokens, the same batches for every scheme."""

from contextlib import ExitStack
from functools import partial

from posexp.config.commands import EvalCommand, TrainCommand
from posexp.config.sections import Strategy
from posexp.evaluation.evaluate import evaluate_run
from posexp.jobs.ranks import place
from posexp.model.device import choose_device
from posexp.output.console import say
from posexp.runs import checkpoint
from posexp.runs.logger import logged_run
from posexp.runs.loggers import Loggers
from posexp.runs.run import Run
from posexp.runs.status import evaluation, preparing
from posexp.training import distributed, processes
from posexp.training.agreement import compare_losses
from posexp.training.loop import fit
from posexp.training.outcome import RankFailed
from posexp.training.prepare import Training, prepare_training


def train(config: TrainCommand) -> Run:
    """Train the run that `config` describes, from its last checkpoint on, then evaluate it at its own lengths.

    Raises Misuse before anything is written if the configuration cannot work; Diverged if the loss stops being
    finite; RunFailed if a checkpoint cannot be saved, another process holds the run, or one that trains it dies;
    Stopped on a signal (posexp/jobs/signals.py).
    """
    run = Run.of(config)
    if (
        config.trainer.devices > 1 and place().size == 1
    ):  # neither torchrun nor srun nor `spawn` has started this process
        try:
            processes.spawn(train, config)
        except RankFailed as error:
            if run.metrics.is_file() and not run.locked():
                run.record(run.status().get("step", 0), status="failed", reason=str(error))
            raise
        return run
    with preparing(run):
        device = choose_device(config.device)
    with ExitStack() as held:
        with distributed.joined(config, device) as ranks:
            training = Training(config, ranks.device(device), ranks)
            train_jointly(training, held)
        if ranks.first:  # the others are free to end: however long this takes, nobody waits
            with evaluation(run, config):  # whoever trains has run the scheme's code already
                how = EvalCommand(eval=dict(vars(config.eval)), loggers=config.loggers, wandb=config.wandb, trust=True)
                evaluate_run(training, how)
    return run


def train_jointly(training: Training, held: ExitStack) -> None:
    """Train with all processes of the run.

    Modules that are spread over the processes are local to this function, since they must be gone before the processes
    part (distributed.part).
    """
    run, config, ranks = training.run, training.config, training.ranks
    with ranks.in_turn():  # the first checks and writes
        prepare_training(training, held)
    saved = checkpoint.restore(run.folder / "checkpoint", say)
    step = ranks.same_step(saved["step"] if saved else 0)
    if step < config.train.steps:
        if ranks.first:
            training.loggers = held.enter_context(
                Loggers(config.loggers, config.wandb, partial(logged_run, run, "train"))
            )
        compare_losses(training, fit(training, saved))
        if ranks.place.size > 1 and config.trainer.strategy is Strategy.fsdp:
            del training.model  # a shard, which evaluation replaces by the model of the checkpoint
    elif saved:
        checkpoint.apply(saved["tensors"], training.model)
        training.model.scheme.progress(1.0)
        if ranks.first:
            say(f"{run.name}: already trained, {step} steps")
            if run.status()["status"] != "done":  # killed between its last checkpoint and this line
                run.record(step, status="done")
