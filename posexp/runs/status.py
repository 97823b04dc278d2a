"""The state of a run, from its folder and SLURM's queue, for posexp runs and for sweeps that complete missing runs."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from posexp.config.commands import TrainCommand
from posexp.config.sections import TrainConfig
from posexp.config.values import plain_value
from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.jobs.slurm import SUBMISSION, Job, Queue, job_of, noted, slurm_job
from posexp.runs.run import Run
from posexp.storage import atomic

JOB = "job.json"
NOTE = {"host": str, "pid": int, "since": int, "job": str, "log": str}


@contextmanager
def preparing(run: Run) -> Iterator[None]:
    """Record in the run folder why a job failed before it took the lock."""
    try:
        yield
    except Exception as error:
        if job_log() and (run.folder / "config.yaml").is_file() and not run.locked():
            with suppress(OSError):
                note_job(run)
                note_failure(run, error, time.time())
        raise


@contextmanager
def worked_on(run: Run) -> Iterator[None]:
    """Record in the run folder which process works on the run, and why training failed."""
    since = note_job(run)
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # the disk may be the cause
            note_failure(run, error, since)
        raise


def note_job(run: Run) -> int:
    """Write job.json for this process; return its time in seconds since 1970."""
    since = int(time.time())
    here = {"host": platform.node(), "pid": os.getpid(), "since": since, "job": slurm_job(), "log": job_log()}
    atomic.write_file(run.folder / JOB, json.dumps(here))
    return since


def note_failure(run: Run, error: Exception, since: float) -> None:
    """Record a failure, unless the run is done or has recorded a failure after `since`."""
    latest = run.status()
    if latest["status"] != "done" and not (latest["status"] == "failed" and latest.get("time", 0) >= since):
        run.record(latest.get("step", 0), status="failed", reason=failure_reason(error))


def failure_reason(error: Exception) -> str:
    text = str(error) if isinstance(error, PosexpError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def job_log() -> str | None:
    """Return the output file of this job if submitit or --detach has chosen one, else None."""
    if folder := os.environ.get("SUBMITIT_FOLDER"):
        job = slurm_job() or os.environ.get("SUBMITIT_LOCAL_JOB_ID", "")
        return str(Path(folder.replace("%j", job)) / f"{job}_0_log.out")
    return os.environ.get("POSEXP_LOG")


@contextmanager
def evaluation(run: Run, config: TrainCommand) -> Iterator[None]:
    """Record in metrics.jsonl that a trained run is being evaluated under `config`, and the outcome."""
    if evaluated(run, config):
        yield
        return
    record = partial(run.record, config.train.steps, eval=asked(config))
    record(evaluation="running")
    try:
        yield
    except Exception as error:
        with suppress(OSError):
            record(evaluation="failed", reason=failure_reason(error))
        raise
    record(evaluation="done")


def evaluated(run: Run, config: TrainCommand) -> bool:
    """Return whether the run has been trained, and evaluated under `config`."""
    rows = run.history(lambda line: None)
    wanted = asked(config)
    return any(row.get("evaluation") == "done" and row.get("eval") == wanted for row in rows)


def asked(config: TrainCommand) -> str:
    """Return the evaluation options as one line of JSON."""
    return json.dumps(plain_value(config.eval), sort_keys=True)


@dataclass(frozen=True)
class RunStatus:
    """A run and its state.

    state: waiting, starting, running, evaluating, done, stopped, interrupted, requeued, failed, damaged or checkpoint.
    job: id of a queued or running SLURM job. since: seconds since 1970. speed: tokens per second. left: seconds.
    """

    run: Run
    state: str
    step: int = 0
    steps: int = 0
    loss: float | None = None
    speed: float | None = None
    left: float | None = None
    host: str = ""
    job: str = ""
    since: float | None = None
    why: str = ""
    log: str = ""

    @property
    def busy(self) -> bool:
        """Whether a process or a queued job works on the run."""
        return bool(self.job) or self.state in {"starting", "running", "evaluating"}


def run_status(run: Run, queue: Queue | None, say: Callable[[str], None]) -> RunStatus:
    """Return the state of a run; log damaged lines through `say`. Raises RunFailed if config.yaml is damaged."""
    if run.foreign:
        return RunStatus(run, "checkpoint")
    steps, batch_tokens = budget(run)
    rows, job, note = run.latest(say), job_of(run.folder, queue), noted(run.folder, JOB, NOTE)
    status, latest = rows["status"], rows.get("loss", {})
    step, speed = status.get("step") or 0, latest.get("tokens_per_second")
    known: dict[str, Any] = {"step": step, "steps": steps, "loss": latest.get("loss"), "speed": speed}
    known["log"] = log_of(run, note)
    state, why = status["status"], str(status.get("reason", ""))
    if state == "done":
        state, why = measured(run, rows.get("evaluation"))
    if run.locked() or (job is not None and not job.waits and state != "done"):
        begun = status.get("time", -1) >= note.get("since", 0)
        state = "evaluating" if status["status"] == "done" else "running" if begun else "starting"
        left = (steps - step) * batch_tokens / speed if state == "running" and speed else None
        id_ = note.get("job") or (job.id if job else "")
        return RunStatus(run, state, **known, left=left, host=note.get("host", ""), job=id_, since=note.get("since"))
    if job is not None and job.waits:
        state = "waiting" if status["status"] == "waiting" else "requeued"
        return RunStatus(run, state, **known, job=job.id, why=waits(job))
    if state == "stopped":
        why = f"by {why}, saved"
    elif state == "interrupted" and not why:
        why = "its process ended without a status"
    elif state == "waiting" and queue is not None and (run.folder / SUBMISSION).is_file():
        why = "its SLURM job ended before training started: repeat the sweep"
    return RunStatus(run, state, **known, why=why)


def budget(run: Run) -> tuple[int, int]:
    """Return the steps of a run and the tokens of a step. Raises RunFailed if config.yaml cannot be read."""
    section = run.section("train")
    known = {key: section[key] for key in ("tokens", "batch_tokens", "length") if key in section}
    try:
        training = TrainConfig(**known)
        return training.steps, training.batch_tokens
    except (TypeError, Misuse) as error:
        raise RunFailed(f"{run.folder / 'config.yaml'} cannot be read: {error}") from error


def measured(run: Run, evaluation: dict[str, Any] | None) -> tuple[str, str]:
    """Return (state, why) of a trained run, depending on whether its last `evaluation` is complete."""
    if evaluation is None:  # older runs record no evaluation
        complete = run.rows.is_file()
    elif evaluation["evaluation"] == "failed":
        return "failed", f"in evaluation: {evaluation.get('reason', '')}"
    else:
        complete = evaluation["evaluation"] == "done"
    return ("done", "") if complete else ("interrupted", "trained, but its evaluation is incomplete")


def waits(job: Job) -> str:
    return "in SLURM's queue" + ("" if job.reason in {"None", ""} else f": {job.reason}")


def log_of(run: Run, note: dict[str, Any]) -> str:
    """Return the job's output file, else the run's own log; empty if neither exists."""
    files = (Path(str(note.get("log") or "")), run.folder / "train.log")
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        return ""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
