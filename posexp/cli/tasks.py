"""The Hydra task of each command: a function that imports heavy modules lazily and that launchers pickle by name."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from omegaconf import DictConfig

from posexp.config.compose import typed
from posexp.config.explain import one_line
from posexp.jobs.signals import in_a_job
from posexp.output.console import say
from posexp.sweeps import sweepers


class Failed(BaseException):
    """The wrapper that carries an error out of Hydra, which would otherwise print the overrides of the job first."""


def task(function: Callable[[Any], object]) -> Callable[[DictConfig], object]:
    """Make a Hydra task from a function of the command's dataclass. In a sweep, an error ends only its own job.

    The task returns the result of the function, by which a sweeper may choose the next job.
    """

    @wraps(function)
    def run_task(config: DictConfig) -> object:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            with in_a_job():
                return function(typed(config))
        except Exception as error:
            if HydraConfig.get().mode is not RunMode.MULTIRUN:
                raise Failed from error
            say(f"posexp: job {HydraConfig.get().job.num}: {one_line(error, 'train')}")
            raise

    return run_task


@task
def train(config: Any) -> float | None:
    if sweepers.in_a_study():
        from posexp.sweeps.study import trial

        return trial(config)
    from posexp.training.train import train

    train(config)
    return None


@task
def evaluate(config: Any) -> None:
    if config.hf is not None:
        from posexp.hf import evaluate_checkpoint

        evaluate_checkpoint(config)
    else:
        from posexp.evaluation.evaluate import evaluate

        evaluate(config)


@task
def report(config: Any) -> None:
    from posexp.report.command import report

    report(config)


@task
def compare(config: Any) -> None:
    from posexp.compare import compare

    compare(config)


@task
def power(config: Any) -> None:
    from posexp.compare import power

    power(config)


@task
def runs(config: Any) -> None:
    from posexp.report.listing import print_runs

    print_runs(config)


@task
def schemes(config: Any) -> None:
    from posexp.report.listing import print_schemes

    print_schemes(config)


@task
def check(config: Any) -> None:
    from posexp.check import check

    check(config)


@task
def bench(config: Any) -> None:
    from posexp.bench import bench

    bench(config)


@task
def inspect(config: Any) -> None:
    from posexp.inspect import inspect

    inspect(config)


@task
def export(config: Any) -> None:
    from posexp.hf.export import export

    export(config)


TASKS: dict[str, Callable[[DictConfig], object]] = {
    "train": train,
    "eval": evaluate,
    "report": report,
    "compare": compare,
    "power": power,
    "runs": runs,
    "schemes": schemes,
    "check": check,
    "bench": bench,
    "inspect": inspect,
    "export": export,
}
