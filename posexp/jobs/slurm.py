"""What SLURM says: of the job that this process is, and of those in its queue, each of which is for a sweep's cell.

A sweep gives all its jobs one comment, and leaves in each cell's folder that comment and the job's place in the array:
so squeue alone tells which job a cell waits for, whatever became of the process that submitted it.
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

# Id, place in the array, state, reason, nodes, comment: between ASCII's separators of records and of fields, since a
# comment, which may be of somebody else's program, can hold lines and every sign that is printed. (squeue --json is
# older SLURM's to lack, and newer SLURM's to change.)
RECORD, FIELD = "\x1e", "\x1f"
COLUMNS = RECORD + FIELD.join(("%i", "%K", "%T", "%r", "%N", "%k"))
SUBMISSION = "submission.json"
# A Python that is still starting dies of the signals that posexp/jobs/signals.py handles later, and SLURM does not
# requeue a job that dies by itself. So the shell around it requeues: after 128 + SIGUSR1 or SIGUSR2, and after 128 +
# SIGTERM if the job was preempted.
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
PATIENCE = 5.0  # seconds that squeue may take: a controller that is down would be waited for ten times as long


@dataclass(frozen=True)
class Job:
    """A job in the queue; its state in SLURM's words, and why it waits."""

    id: str
    state: str
    reason: str
    node: str

    @property
    def waits(self) -> bool:
        return self.state in {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}


Queue = dict[tuple[str, int], Job]  # by comment and place


def slurm_job() -> str | None:
    """The job that this process belongs to, as squeue calls it: 12, or 12_3 in an array."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return os.environ.get("SLURM_JOB_ID")


def preempted() -> bool:
    """Whether SLURM wants this job's place for another one. SIGTERM alone does not say: scancel sends it, too."""
    if (job := slurm_job()) is None:
        return False
    try:
        shown = ask("squeue", "--noheader", f"--jobs={job}", "--Format=PreemptTime", seconds=20).stdout  # or N/A
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(sign.isdigit() for sign in shown)


def queue(folders: list[Path], say: Callable[[str], None]) -> Queue | None:
    """Return this user's jobs that are not over; None if no run folder ever had a job, or if SLURM does not answer.

    `say` prints why SLURM does not."""
    if not any((folder / SUBMISSION).is_file() for folder in folders):
        return None
    try:
        done = ask("squeue", "--me", "--array", "--noheader", f"--format={COLUMNS}", seconds=PATIENCE)
        problem = done.stderr.strip().splitlines()[0] if done.returncode and done.stderr.strip() else ""
    except subprocess.TimeoutExpired:
        problem = f"no answer within {PATIENCE:g} seconds"
    except OSError as error:
        problem = str(error)
    if problem:
        say(f"SLURM's queue cannot be seen from here ({problem}): jobs that wait in it look as if they did not")
        return None
    found: Queue = {}
    for record in done.stdout.split(RECORD):
        fields = record.split(FIELD)
        if len(fields) != COLUMNS.count(FIELD) + 1:
            continue  # not of a job that posexp has submitted
        id_, place, state, reason, node, comment = fields
        if words := comment.split():
            found[words[-1], int(place) if place.isdecimal() else 0] = Job(id_, state, reason, node)
    return found


def submit(folder: Path, comment: str, place: int) -> None:
    """Notes which job the run will be."""
    atomic.write_file(folder / SUBMISSION, json.dumps({"comment": comment, "place": place}))


def job_of(folder: Path, queue: Queue | None) -> Job | None:
    """The job that is queued for the run, or works on it."""
    about = noted(folder, SUBMISSION, {"comment": str, "place": int})
    return (queue or {}).get((about.get("comment", ""), about.get("place", 0)))


def noted(folder: Path, name: str, kinds: dict[str, type]) -> dict[str, Any]:
    """What a note in the run's folder says, as far as it is of the right kind: notes only help to look on."""
    try:
        about = untrusted.json_of(untrusted.read_bytes(folder / name))
    except (OSError, ValueError):
        return {}
    known = about if isinstance(about, dict) else {}
    return {key: known[key] for key, kind in kinds.items() if type(known.get(key)) is kind}
