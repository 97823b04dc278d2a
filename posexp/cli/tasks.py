"""The function of each command, imported when it runs. Launchers pickle `run_job` by name."""

from importlib import import_module
from typing import Any

from omegaconf import DictConfig

from posexp.config.commands import COMMANDS
from posexp.config.compose import typed
from posexp.config.explain import explain_error
from posexp.config.overrides import read_typed
from posexp.jobs.signals import in_a_job
from posexp.output.console import say
from posexp.sweeps.cells import cell

read_typed()  # here, because a launcher's job composes its config after it imported the task
FUNCTIONS = {
    "train": "posexp.training.train.train",
    "eval": "posexp.evaluation.evaluate.evaluate",
    "report": "posexp.report.command.report",
    "compare": "posexp.compare.compare",
    "power": "posexp.compare.power",
    "leaderboard": "posexp.leaderboard.leaderboard",
    "runs": "posexp.cli.runs.print_runs",
    "schemes": "posexp.cli.schemes.print_schemes",
    "doctor": "posexp.doctor.doctor",
    "check": "posexp.check.check",
    "bench": "posexp.bench.bench",
    "inspect": "posexp.inspect.inspect",
    "export": "posexp.hf.export.export",
}
OF_CHECKPOINT = {"eval": "posexp.hf.evaluate_checkpoint", "check": "posexp.hf.check_checkpoint"}  # with hf=…


def perform(config: Any) -> Any:
    """Run the command whose dataclass `config` is, and return what its function returns."""
    (command,) = (name for name, schema in COMMANDS.items() if isinstance(config, schema))
    of_checkpoint = getattr(config, "hf", None) is not None  # posexp eval hf=…
    module, _, name = (OF_CHECKPOINT if of_checkpoint else FUNCTIONS)[command].rpartition(".")
    with in_a_job():
        return getattr(import_module(module), name)(config)


def run_job(config: DictConfig) -> None:
    """Run one job of a sweep. Its error is logged, because it ends only this job."""
    from hydra.core.hydra_config import HydraConfig

    job: Any = HydraConfig.get().job
    number = job.get("num", 0)  # missing outside sweeps
    with cell(number):
        try:
            from posexp.runs.parent import inherit

            perform(typed(config, inherit, HydraConfig.get().overrides.task))
        except Exception as error:
            say(f"posexp: job {number}: {explain_error(error, 'train')}")
            raise
