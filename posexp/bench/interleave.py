"""The parent process of the bench, which runs workers in turns, one at a time."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import posexp
from posexp.bench.models import Contender
from posexp.config.bench import BenchCommand
from posexp.output.console import progress, say

OK = "ok"
TURN = 0.3  # minimum seconds per turn
# glibc then maps each larger block of memory by itself, so the peak has no free memory in it: malloc(3), mallopt(3).
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # bytes
Answer = dict[str, Any]


class Worker:
    """A process with one contender. Its first answer has the facts of the built contender."""

    def __init__(self, contender: Contender, command: BenchCommand, training: bool, rehearse: bool = False):
        self.contender = contender
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `stop`
        self.pipe, end = multiprocessing.Pipe()
        root = str(Path(posexp.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with end:
            self.process = subprocess.Popen(
                # -P: files in the user's folder must not shadow library modules
                [sys.executable, "-P", "-m", "posexp.bench.worker", str(end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.errors,
                pass_fds=[end.fileno()],
                env={**os.environ, "PYTHONPATH": path, **(MAPPED if rehearse else {})},
            )
        self.send(contender=contender, command=command, training=training, rehearse=rehearse)

    def send(self, **question: Any) -> None:
        with suppress(OSError):  # the process died: `receive` reports the reason
            self.pipe.send(question)

    def receive(self) -> Answer:
        try:
            answer: Answer = self.pipe.recv()
            return answer
        except (EOFError, OSError):
            return {"status": self.death()}

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
        self.pipe.close()
        self.errors.close()


@dataclass
class Measured:
    """The measurements of one contender at one length. `status` is "ok" or an error in one line, which is logged."""

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

    def succeeds(self, answer: Answer) -> bool:
        self.status = answer["status"]
        if self.status != OK:
            say(f"{self.contender.name}, {self.what} at {self.length:,} tokens: {self.status}")
        return self.status == OK


@contextmanager
def workers(
    contenders: list[Contender], command: BenchCommand, training: bool, rehearse: bool = False
) -> Iterator[list[tuple[Worker, Answer]]]:
    """Start a worker for each contender and yield the workers with their first answers. Stop all at the end."""
    with ExitStack() as running:
        started = []
        for contender in contenders:
            started.append(Worker(contender, command, training, rehearse))
            running.callback(started[-1].stop)
        yield [(worker, worker.receive()) for worker in started]


def measure(contenders: list[Contender], command: BenchCommand) -> Iterator[list[Measured]]:
    """Measure training, evaluation at each length, and memory. Yield all results so far after each stage."""
    measured = (1 + len(command.lengths)) * len(contenders)
    bar = progress("", (command.rounds + 2) * measured, "turns")  # with the warm-up and the process for memory
    found = timed(contenders, command, "training", [command.length], bar)
    yield found
    if command.lengths:
        found += timed(contenders, command, "evaluation", command.lengths, bar)
        yield found
    say("memory: one process per contender and length")
    with bar:
        for one in found:
            bar.at(f"memory, {one.contender.name}, {one.what} at {one.length:,} tokens")
            if one.status == OK:
                with workers([one.contender], command, one.what == "training", rehearse=True) as ((worker, first),):
                    if one.succeeds(first):
                        worker.send(memory=True, length=one.length)
                        answer = worker.receive()
                        one.succeeds(answer)
                        one.peak_memory = answer.get("peak_memory")
            bar.advance()
    yield found


def timed(
    contenders: list[Contender], command: BenchCommand, what: str, lengths: list[int], bar: progress
) -> list[Measured]:
    found: list[Measured] = []
    rounds = command.rounds
    with workers(contenders, command, what == "training") as ready:
        for length in lengths:
            say(f"{what} at {length:,} tokens: {len(contenders)} contenders, {rounds} rounds")
            row_of = {worker: Measured(worker.contender, what, length) for worker, _ in ready}
            found += row_of.values()
            for worker, first in ready:
                if row_of[worker].succeeds(first):
                    row_of[worker].facts = first
            bar.at(f"{what} at {length:,} tokens")
            with bar:
                take_turns(row_of, rounds, bar.advance)
    return found


def take_turns(row_of: dict[Worker, Measured], rounds: int, advance: Callable[[], object]) -> None:
    """Fill the rows. The first round is a warm-up that determines the number of passes per turn."""
    repeat: dict[Worker, int | None] = dict.fromkeys(row_of)
    for index in range(rounds + 1):
        for worker, row in row_of.items():
            if row.status == OK:
                worker.send(length=row.length, repeat=repeat[worker])
                if not row.succeeds(answer := worker.receive()):
                    pass
                elif index == 0:
                    repeat[worker] = math.ceil(TURN / answer["seconds"])
                    row.tokens, row.flops_per_token = answer["tokens"], answer["flops_per_token"]
                else:
                    row.seconds[index] = answer["seconds"]
                    row.matmul_peaks.append(answer["matmul_peak"])
            advance()
