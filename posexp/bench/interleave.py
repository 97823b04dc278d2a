"""The parent process of the bench, which runs workers in turns, one at a time."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import posexp
from posexp.bench.models import Contender, Settings
from posexp.output.console import progress, say

OK = "ok"
TURN = 0.3  # minimum seconds per turn
Answer = dict[str, Any]


class Worker:
    """A process with one contender. Its first answer has the `facts` of the built contender."""

    def __init__(self, contender: Contender, settings: Settings, training: bool, rehearse: bool = False):
        self.contender = contender
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `stop`
        root = str(Path(posexp.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            # -P: files in the user's folder must not shadow library modules
            [sys.executable, "-P", "-m", "posexp.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        job = {"contender": asdict(contender), "settings": settings.message()}
        self.send({**job, "training": training, "rehearse": rehearse})

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the process died: `receive` reports the reason

    def receive(self) -> Answer:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"status": self.death()}

    def ask(self, **question: Any) -> Answer:
        self.send(question)
        return self.receive()

    def death(self) -> str:
        """Return one line on why the process ended without an answer."""
        code = self.process.wait()
        self.errors.seek(0)
        last = ([line.strip() for line in self.errors if line.strip()] or [""])[-1]
        if "bad_alloc" in last or "MemoryError" in last:
            return "out of memory"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{how}: {last[:200]}" if last else how

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.errors):
            assert file is not None
            file.close()


@dataclass
class Measured:
    """The measurements of one contender at one length."""

    contender: Contender
    what: str
    length: int
    status: str = OK
    facts: Answer = field(default_factory=dict)
    tokens: int = 0  # of a pass
    flops_per_token: float = 0.0
    seconds: dict[int, float] = field(default_factory=dict)  # of a pass, by round
    matmul_peaks: list[float] = field(default_factory=list)  # operations per second, by round
    peak_memory: int | None = None  # bytes


@contextmanager
def workers(
    contenders: list[Contender], settings: Settings, training: bool, rehearse: bool = False
) -> Iterator[list[tuple[Worker, Answer]]]:
    """Start a worker for each contender and yield the workers with their first answers. Stop all at the end."""
    started: list[Worker] = []
    try:
        for contender in contenders:
            started.append(Worker(contender, settings, training, rehearse))
        yield [(worker, worker.receive()) for worker in started]
    finally:
        for worker in started:
            worker.stop()


def measure(
    contenders: list[Contender], settings: Settings, lengths: list[int], rounds: int
) -> Iterator[list[Measured]]:
    """Measure training, evaluation at each of `lengths`, and memory. Yield all results so far after each stage."""
    found = timed(contenders, settings, "training", [settings.length], rounds)
    yield found
    found += timed(contenders, settings, "evaluation", lengths, rounds)
    yield found
    say("memory: one process per contender and length")
    with progress("memory", len(found), "processes") as bar:
        for one in found:
            if one.status == OK:
                remember(one, settings)
            bar.advance()
    yield found


def timed(
    contenders: list[Contender], settings: Settings, what: str, lengths: list[int], rounds: int
) -> list[Measured]:
    found = []
    with workers(contenders, settings, what == "training") as ready:
        for length in lengths:
            say(f"{what} at {length:,} tokens: {len(contenders)} contenders, {rounds} rounds")
            row_of = {}
            for worker, first in ready:
                row = Measured(worker.contender, what, length, first["status"], first if first["status"] == OK else {})
                row_of[worker] = row
                found.append(row)
                if row.status != OK:
                    log_status(row)
            with progress(f"{what} at {length:,} tokens", (rounds + 1) * len(row_of), "turns") as bar:
                take_turns(row_of, rounds, bar.advance)
    return found


def take_turns(row_of: dict[Worker, Measured], rounds: int, advance: Callable[[], object]) -> None:
    """Fill the rows. The first round is a warm-up that determines the number of passes per turn."""
    repeat: dict[Worker, int | None] = dict.fromkeys(row_of)
    for index in range(rounds + 1):
        for worker, row in row_of.items():
            if row.status == OK:
                answer = worker.ask(do="turn", length=row.length, repeat=repeat[worker])
                if answer["status"] != OK:
                    row.status = answer["status"]
                    log_status(row)
                elif index == 0:
                    repeat[worker] = math.ceil(TURN / answer["seconds"])
                    row.tokens, row.flops_per_token = answer["tokens"], answer["flops_per_token"]
                else:
                    row.seconds[index] = answer["seconds"]
                    row.matmul_peaks.append(answer["matmul_peak"])
            advance()


def remember(row: Measured, settings: Settings) -> None:
    with workers([row.contender], settings, row.what == "training", rehearse=True) as ((worker, first),):
        answer = worker.ask(do="memory", length=row.length) if first["status"] == OK else first
    row.status = answer["status"]
    row.peak_memory = answer.get("peak_memory")
    if row.status != OK:
        log_status(row)


def log_status(row: Measured) -> None:
    say(f"{row.contender.name}, {row.what} at {row.length:,} tokens: {row.status}")
