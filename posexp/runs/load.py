"""The selection of runs by a command, and the work on each of them."""

from collections.abc import Callable

from posexp.errors import Inapplicable, Misuse, PosexpError, RunFailed
from posexp.output.console import say
from posexp.runs.run import Run, find_runs
from posexp.storage.locks import LockHeld


def finished_runs(results: str, group: str, pattern: str) -> list[Run]:
    """Return the matching runs that are done. Others are logged and skipped, external checkpoints silently."""
    matching = find_runs(results, group, pattern)
    found = [run for run in matching if not run.foreign]
    if matching and not found:
        raise Misuse(
            f"{matching[0].name} is a checkpoint from elsewhere, not a run that posexp trained: it can "
            "only be used with posexp eval hf=<folder or hub id>, report and compare"
        )
    finished = [run for run in found if run.status()["status"] == "done"]
    if not finished:
        unfinished = f"; {len(found)} unfinished: repeat their train command" if found else ""
        place = f"{results}/{group}/{pattern}"
        raise Misuse(f"no finished run in {place}{unfinished}. Train one first: posexp train +scheme=<name>")
    for run in found:
        if run not in finished:
            say(f"{run.name}: not finished ({run.status()['status']}), skipped")
    return finished


def for_each(runs: list[Run], work: Callable[[Run], object], done: str) -> None:
    """Call `work` for every run. Errors are logged, and the other runs go on.

    A run whose lock is held (locks.LockHeld) is requeued behind the others. Raises the first error if every run
    failed; RunFailed with the number of runs that could not be `done` if some failed, not counting Inapplicable ones.
    """
    errors: list[PosexpError] = []
    queue = list(runs)
    for run in queue:
        try:
            work(run)
            continue
        except LockHeld:
            queue.append(run)
            continue
        except BrokenPipeError:  # the reader of the output has ended
            raise
        except PosexpError as error:
            errors.append(type(error)(f"{run.name}: {error}"))
        except OSError as error:
            errors.append(RunFailed(f"{run.name}: cannot write or read {error.filename}: {error.strerror}"))
        if len(runs) > 1:
            say(str(errors[-1]))
    failed = [error for error in errors if not isinstance(error, Inapplicable)]
    if errors and len(errors) == len(runs):
        raise (failed or errors)[0]
    if failed:
        raise RunFailed(f"{len(failed)} of {len(runs)} runs could not be {done} (see above)")
