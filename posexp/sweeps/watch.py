"""The wait of a sweep for its SLURM jobs, which ends when SLURM has not answered for SILENCE seconds.

submitit asks sacct, takes no answer for "still running", and would wait for ever. This watcher asks squeue too.
"""

import shlex
import time

from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from posexp.errors import RunFailed
from posexp.jobs.slurm import read_queue

SILENCE = 1800.0  # seconds; a controller that is restarted is back by then
REQUEUE = 60.0  # seconds for which squeue may not list a job that is requeued
SELDOM, OFTEN = 600, 60  # most seconds between two questions, while SLURM answers and while it does not


class Watcher(SlurmInfoWatcher):
    """What SLURM answers about the jobs of the sweep in `group`, from sacct or, without accounting, from squeue."""

    def __init__(self, group: str):
        super().__init__(delay_s=SELDOM)
        self.group = group
        self.heard = time.monotonic()
        self.unlisted: dict[str, float] = {}  # since when, by job

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        info: dict[str, dict[str, str]] = super().read_info(string)
        self.accounted = bool(info)
        return info

    def update(self) -> None:
        """Ask SLURM for the state of all jobs. Raises RunFailed if it has not answered for SILENCE seconds."""
        self.accounted = False
        super().update()
        try:
            listed = None if self.accounted else {job.id for job in read_queue().values()}
        except OSError as error:
            if time.monotonic() - self.heard > SILENCE:
                raise RunFailed(
                    f"SLURM has not answered for {SILENCE / 60:g} minutes ({error}), so this process waits no longer; "
                    f"jobs that run continue: posexp runs --group {shlex.quote(self.group)} shows them, "
                    "and the same command completes the sweep"
                ) from error
            self._delay_s = OFTEN
            return
        self.heard, self._delay_s = time.monotonic(), SELDOM
        if listed is not None:
            for id_ in self._registered - self._finished:
                if id_ in listed:
                    self.unlisted.pop(id_, None)
                elif self.heard - self.unlisted.setdefault(id_, self.heard) > REQUEUE:
                    self._info_dict[id_] = {"State": "COMPLETED"}  # or ended in another way: it has a result or none


def watch_jobs(group: str) -> None:
    """Let submitit ask about the jobs of a sweep through a Watcher."""
    SlurmJob.watcher = Watcher(group)
