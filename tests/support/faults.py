"""Commands in processes of their own that can be killed at any moment, and a tally of what was tried.

The processes are forked from a server that has imported everything, so that a fault hits work and not imports.
Few of each fault by default; `scripts/faults` sets POSEXP_FAULTS=full and gathers the tally into a table.
"""

import functools
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import TINY, WORDS
from support.rows import stored_losses

from posexp.storage import jsonl

FULL = os.environ.get("POSEXP_FAULTS") == "full"
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["support.warm"])
HERE = Path(__file__).resolve().parents[1]
# What two equal measurements need not share; the matrix product is chosen by its speed.
SAME = {"tokens_per_second": None, "peak_memory": None, "matmul": None}

# Two runs of a moment each, on text of a few kilobytes.
SMALL = [*TINY, "train.tokens=10240", "train.checkpoint_every=4", "device=cpu", "--lengths", "8,16,32"]


def times(few: Any, full: Any) -> Any:
    return full if FULL else few


def dice(seed: int | None = None) -> random.Random:
    """A generator whose seed the output of a failed test shows."""
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}")
    return random.Random(seed)


def tally(fault: str, tried: int, lost: str) -> None:
    """A line of the table: how often a fault was tried, and what was lost of what."""
    test = os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
    line = {"fault": fault, "tried": tried, "lost": lost, "test": test}
    print(line)
    if path := os.environ.get("POSEXP_FAULTS_TALLY"):
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")


@dataclass
class Command:
    """posexp in a process; what it prints goes to a file."""

    process: ForkServerProcess
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def alive(self) -> bool:
        return self.process.is_alive()

    def wait(self, seconds: float = 120) -> int:
        """Its exit code; minus the signal's number, if one killed it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still at it after {seconds} s: {self.said}"
        return self.process.exitcode

    def until(self, word: str, seconds: float = 60) -> None:
        """Waits until it has said `word`, or has ended."""
        end = time.monotonic() + seconds
        while self.alive() and word not in self.said:
            assert time.monotonic() < end, self.said
            time.sleep(0.005)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def ended_well(self) -> str:
        assert self.wait() == 0, self.said
        assert "Traceback" not in self.said, self.said
        return self.said

    def complaint(self) -> str:
        """The last line: the one that says what is wrong."""
        code, said = self.wait(), self.said
        assert code in (1, 2), (code, said)
        assert "Traceback" not in said and "unexpected" not in said, said
        (line,) = [line for line in said.splitlines() if line.startswith("posexp: error:")]
        return line


def start(*words: str, cwd: Path, before: Callable[[], None] | None = None, **environment: str) -> Command:
    """`before` is called in the process, ahead of the command."""
    log = cwd / f"said-{time.monotonic_ns()}.txt"
    log.touch()
    serve()
    process = FORK.Process(target=run, args=(words, cwd, log, environment, before))
    process.start()
    return Command(process, log)


@functools.cache
def serve() -> None:
    """Starts the server, which looks for what it imports in PYTHONPATH alone, and passes over what it cannot find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
        forkserver.ensure_running()


def run(
    words: tuple[str, ...], cwd: Path, log: Path, environment: dict[str, str], before: Callable[[], None] | None
) -> None:
    from posexp.cli.main import main

    os.chdir(cwd)
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["posexp", *words]
    if before is not None:
        before()
    code = main()
    sys.stdout.flush()
    sys.exit(code)


def write_text(folder: Path, documents: int = 24, words: int = 200) -> None:
    """Enough for a training, a validation and a test split."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    for n in range(documents):
        (folder / f"{n:02}.txt").write_text(" ".join(draw.choices(WORDS, k=words + 10 * n)))


def rows_of(run: Path) -> list[dict]:
    """What was measured, in an order of its own."""
    rows = jsonl.read_lines(run / "rows.jsonl", print)
    order = ("protocol", "length", "control", "transform", "targets_hash", "weights")
    return sorted((row | SAME for row in rows), key=lambda row: [str(row[key]) for key in order])


def losses_of(run: Path) -> list[tuple[int, float]]:
    """Steps and training losses."""
    return [(row["step"], row["loss"]) for row in jsonl.read_lines(run / "metrics.jsonl", print) if "loss" in row]


def weights_of(run: Path) -> bytes:
    """The final checkpoint: weights and optimizer."""
    return sorted(run.glob("checkpoint/*.safetensors"))[-1].read_bytes()


def assert_same_rows(run: Path, calm: Path) -> None:
    """Each row once, with the numbers of an evaluation that nothing happened to.

    To float32's rounding: after an interruption a length is read by itself that a longer one would have served.
    """
    ones, others = rows_of(run), rows_of(calm)
    assert len(ones) == len(others), (len(ones), len(others))
    for one, other in zip(ones, others, strict=True):
        assert differing(one, other) == {}
        mine, wanted = stored_losses(run, one), stored_losses(calm, other)
        assert (mine is None) == (wanted is None)
        if mine is not None and wanted is not None:
            assert np.abs(mine.nll - wanted.nll).max() < 1e-4
            assert (mine.target == wanted.target).all() and (mine.context == wanted.context).all()


def differing(one: dict, other: dict) -> dict[str, tuple]:
    """The columns in which two rows differ by more than rounding."""

    def same(a: Any, b: Any) -> bool:
        return a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= 1e-5 * abs(b))

    keys = one.keys() | other.keys()
    return {key: (one.get(key), other.get(key)) for key in keys if not same(one.get(key), other.get(key))}


def only(results: Path, label: str = "*") -> Path:
    (folder,) = [path.parent for path in results.glob(f"*/{label}-s*/config.yaml")]
    return folder
