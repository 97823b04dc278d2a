"""The posexp doctor command: what this machine has, what posexp will use, and what to do where something is missing.

All probes run at once. Each returns findings of one line, and its error is a finding too. Nothing is written.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from posexp.config.commands import DoctorCommand
from posexp.doctor import machine, pytorch, services
from posexp.doctor.findings import Finding, Mark, finding
from posexp.errors import RunFailed

Probe = Callable[[], list[Finding]]


def doctor(command: DoctorCommand) -> None:
    """Print all findings. Raises RunFailed if one would stop a training run."""
    from rich.text import Text

    from posexp.output.console import console

    screen, found = console(), list(findings(command))
    width = max(len(each.name) for each in found)
    for each in found:
        mark = (f"{each.mark.name:<8}", each.mark.value)
        line = Text.assemble(mark, f"{each.name:<{width}}  ", each.fact, f" → {each.remedy}" if each.remedy else "")
        screen.print(line, soft_wrap=True)
    problems = [each.name for each in found if each.mark is Mark.problem]
    if problems:
        raise RunFailed(f"no training run can succeed here before this is solved: {', '.join(problems)}")


def findings(command: DoctorCommand) -> list[Finding]:
    """Return the findings of all probes."""
    probes: dict[str, Probe] = {
        "python": machine.python,
        "torch": pytorch.pytorch,
        "memory": machine.memory,
        "disk": partial(machine.disks, {"results": command.results, "cache": command.cache}),
        "stores": partial(machine.stores, command.cache),
        "hub": services.hub,
        "wandb": services.wandb,
        "slurm": services.slurm,
        "extras": services.extras,
    }
    with ThreadPoolExecutor(len(probes)) as pool:
        started = {name: pool.submit(probe) for name, probe in probes.items()}
    return [each for name, future in started.items() for each in outcome(name, future)]


def outcome(name: str, future: Future[list[Finding]]) -> list[Finding]:
    """Return the findings of a probe, or its error as one."""
    if (error := future.exception()) is None:
        return future.result()
    text = " ".join(str(error).split())
    return [finding(name, f"cannot be examined: {type(error).__name__}: {text}", "nothing else depends on it")]
