"""SLURM's view of this process's job and of queued jobs, each of which belongs to one run of a sweep.

A sweep gives all its jobs one comment, and writes the comment and the job's array index into each run folder. So squeue
alone identifies the job of a run, even if the process that submitted it has ended.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posexp.jobs.programs import ask
from posexp.storage import atomic, untrusted

# Id, array index, state, reason, nodes, comment. They are separated by ASCII's record and field separators, since the
# comment of another program can hold newlines and any printable character. (Older SLURM has no squeue --json, and its
# format changes between versions.)
RECORD, FIELD = "\x1e", "\x1f"
COLUMNS = RECORD + FIELD.join(("%i", "%K", "%T", "%r", "%N", "%k"))
SUBMISSION = "submission.json"
# A signal that arrives before posexp/jobs/signals.py has installed its handlers kills Python, and SLURM does not
# requeue a job that ends by itself. So the shell around Python requeues the job: after exit code 128 + SIGUSR1 or
# SIGUSR2, and after 128 + SIGTERM if the job was preempted.
GUARD = """posexp_back() {
  job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
  case $1 in
    138|140) ;;
    143) squeue --noheader --jobs="$job" --Format=PreemptTime | grep -q '[0-9]' || return ;;
    *) return ;;
  esac
  scontrol requeue "$job"
}
trap 'posexp_back $?' EXIT"""
PATIENCE = 5.0  # seconds for squeue, whose own timeout is ten times as long if the controller is down


@dataclass(frozen=True)
class Job:
    """A job in the queue, with its state and pending reason as SLURM names them."""

    id: str
    state: str
    reason: str
    node: str

    @property
    def waits(self) -> bool:
        return self.state in {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}


Queue = dict[tuple[str, int], Job]  # by comment and array index


def slurm_job() -> str | None:
    """Return the id of this process's job as squeue prints it: 12, or 12_3 in an array."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return os.environ.get("SLURM_JOB_ID")


def preempted() -> bool:
    """Return whether SLURM is preempting this job. SIGTERM alone is ambiguous, since scancel sends it too."""
    if (job := slurm_job()) is None:
        return False
    try:
        shown = ask("squeue", "--noheader", f"--jobs={job}", "--Format=PreemptTime", seconds=20).stdout  # or N/A
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(sign.isdigit() for sign in shown)


def queue(folders: list[Path], say: Callable[[str], None]) -> Queue | None:
    """Return this user's unfinished jobs, or None if no run folder ever had a job or if SLURM does not answer.

    `say` prints why SLURM does not answer.
    """
    if not any((folder / SUBMISSION).is_file() for folder in folders):
        return None
    try:
        return read_queue()
    except OSError as error:
        say(f"cannot read SLURM's queue ({error}): queued jobs are shown as if they were not queued")
        return None


def read_queue() -> Queue:
    """Return this user's unfinished jobs. Raises OSError with the reason if SLURM does not answer."""
    try:
        done = ask("squeue", "--me", "--array", "--noheader", f"--format={COLUMNS}", seconds=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"no answer within {PATIENCE:g} seconds") from error
    if done.returncode:
        raise OSError((done.stderr.strip() or f"squeue ended with code {done.returncode}").splitlines()[0])
    found: Queue = {}
    for record in done.stdout.split(RECORD):
        fields = record.split(FIELD)
        if len(fields) != COLUMNS.count(FIELD) + 1:
            continue  # not a job of posexp
        id_, place, state, reason, node, comment = fields
        if words := comment.split():
            found[words[-1], int(place) if place.isdecimal() else 0] = Job(id_, state, reason, node)
    return found


def submit(folder: Path, comment: str, place: int) -> None:
    """Write the comment and array index of the run's job into its folder."""
    atomic.write_file(folder / SUBMISSION, json.dumps({"comment": comment, "place": place}))


def job_of(folder: Path, queue: Queue | None) -> Job | None:
    """Return the queued or running job of the run, or None."""
    about = noted(folder, SUBMISSION, {"comment": str, "place": int})
    return (queue or {}).get((about.get("comment", ""), about.get("place", 0)))


def noted(folder: Path, name: str, kinds: dict[str, type]) -> dict[str, Any]:
    """Load a note from the run folder, keeping only values of the right type. Notes are for display only."""
    try:
        about = untrusted.json_of(untrusted.read_bytes(folder / name))
    except (OSError, ValueError):
        return {}
    known = about if isinstance(about, dict) else {}
    return {key: known[key] for key, kind in kinds.items() if type(known.get(key)) is kind}
