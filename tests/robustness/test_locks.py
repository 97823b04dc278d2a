"""Several processes on one group: each thing is done once, by one of them, and the others say what they wait for."""

import ctypes
import errno
import json
import platform
import re
import shutil
import signal
import struct
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from support.command import TINY
from support.faults import FORK, SMALL, assert_same_rows, only, rows_of, start, tally, times, weights_of, write_text

from posexp.runs.run import Run, find_runs
from posexp.storage import jsonl, locks

pytestmark = pytest.mark.slow

QUICK = ["+scheme=rope,alibi", *TINY, "train.tokens=1024", "device=cpu", "--lengths", "8,16"]
REFUSED = r"job \d: \S+ is being worked on by process \d+ on \S+, since [-\d]+ [:\d]+; wait for it or stop it"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text, a token store, and a group of four finished runs in trained/."""
    folder = tmp_path_factory.mktemp("locks")
    write_text(folder / "text")
    start("train", "-m", *QUICK, "seed=0,1", "results=trained", cwd=folder).ended_well()
    return folder


def test_processes_that_evaluate_one_group_share_its_runs_and_repeat_nothing(world):
    words = ["eval", "wandb.mode=disabled", "device=cpu", "--lengths", "8,16,32,64,128"]
    shutil.copytree(world / "trained", world / "alone")
    start(*words, "results=alone", cwd=world).ended_well()
    count, busy, waits = times(1, 20), 0, 0
    for n in range(count):
        shutil.copytree(world / "trained", world / f"shared-{n}")
        commands = [start(*words, f"results=shared-{n}", cwd=world) for _ in range(4)]
        said = [command.ended_well() for command in commands]
        measured = [re.findall(r"^(\S+): \w+ \d+.*: ppl", text, re.MULTILINE) for text in said]
        for run in find_runs(str(world / "alone"), "default"):
            other = world / f"shared-{n}" / "default" / run.name
            assert_same_rows(other, run.folder)
            # a run that was one process's is measured as by one process: bit for bit
            assert rows_of(other) == rows_of(run.folder)
            assert sum(run.name in names for names in measured) == 1, "one run, one process"
        busy += sum(bool(names) for names in measured)
        waits += sum(bool(re.search(r"waiting for process \d+ on \S+, since", text)) for text in said)
    assert count == 1 or busy > count, "more than one process measures"
    found = f"{busy / count:.1f} of the 4 processes measured, {waits} said what they waited for"
    tally("4 processes evaluate one group of 4 runs", count, f"nothing: every row once; {found}")


def test_two_launchers_that_race_for_the_same_cells_train_each_once(world):
    count, refused, late, planned = times(1, 100), 0, 0, 0
    for n in range(count):
        commands = []
        for delay in (n % 20 / 10, 0):  # none in the first try
            commands.append(start("train", "-m", *QUICK, f"results=race-{n}", cwd=world))
            time.sleep(delay)
        codes = [command.wait() for command in commands]
        said = [command.said for command in commands]
        for run in find_runs(str(world / f"race-{n}"), "default"):
            assert [row["status"] for row in jsonl.read_lines(run.metrics, print) if "status" in row] == [
                "running",
                "done",
            ]
            trained = [f"{run.name}: training from step 0" in text for text in said]
            assert sorted(trained) == [False, True]
            rows = rows_of(run.folder)
            assert len(rows) == len({json.dumps(row, sort_keys=True) for row in rows}) == 5
        for code, text in zip(codes, said, strict=True):
            assert "Traceback" not in text, text
            lines = re.findall(REFUSED, text)
            refused += len(lines)
            late += text.count("already trained")
            (plan,) = re.findall(r"^2 cells: (.*)$", text, re.MULTILINE)
            skipped = sum(int(number) for number in re.findall(r"(\d) (?:being worked on|done)", plan))
            begun = text.count("training from") + text.count("already trained") + len(lines)
            assert f"{begun} to do" in plan and begun + skipped == 2 and code == bool(lines), text
            planned += skipped
        shutil.rmtree(world / f"race-{n}")
    how = (
        f"{refused} times the loser said in a line who has the cell and continued, {late} times it found it trained, "
        f"{planned} times its plan had skipped it"
    )
    tally("two launchers race for the same two cells", count, f"nothing: each cell trained once; {how}")


def look(lock: Path, until: float) -> None:
    while time.monotonic() < until:
        locks.taken(lock)


def test_looking_whether_a_run_is_held_never_refuses_it_to_one_who_takes_it(tmp_path):
    """As `posexp runs` does beside a sweep that starts."""
    lock = tmp_path / ".lock"
    lock.touch()
    looker = FORK.Process(target=look, args=(lock, time.monotonic() + 3))
    looker.start()
    held = 0
    while looker.is_alive():
        with locks.hold(lock, tmp_path / "holder.json"):
            held += 1
    assert held > 10


def no_flock(error: int) -> None:
    """The kernel answers this process's flock(2) with `error`, as on a file system without locks (by seccomp)."""
    number = {"x86_64": 73, "aarch64": 32}[platform.machine()]
    load, jump, answer = 0x20, 0x15, 0x06  # of a filter over the number of the call
    lines = [(load, 0, 0, 0), (jump, 0, 1, number), (answer, 0, 0, 0x50000 | error), (answer, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, program) == 0  # PR_SET_SECCOMP, by a filter


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize("error", sorted(locks.NO_LOCKS, key=lambda error: error != errno.ENOSYS)[: times(1, 3)])
def test_without_file_locks_a_run_is_still_one_process_at_a_time_and_a_dead_one_is_passed_over(world, error):
    start("train", "+scheme=rope", *SMALL, f"results=calm-{error}", cwd=world).ended_well()
    words = ["train", "+scheme=rope", *SMALL, f"results=lockless-{error}"]
    before = partial(no_flock, error)
    start(*words, f"data.cache=cache-{error}", cwd=world, before=before).ended_well()
    shutil.rmtree(world / f"lockless-{error}")
    first = start(*words, cwd=world, before=before)
    first.until("training from")
    first.signal(signal.SIGSTOP)  # it stays where it is
    run = only(world / f"lockless-{error}")
    refused = start(*words, cwd=world, before=before).complaint()
    assert f"is being worked on by process {first.process.pid} on {platform.node()}" in refused
    assert f"remove {run.relative_to(world)}/.lock.held" in refused
    first.kill()
    assert run_status(run) == "interrupted"
    start(*words, cwd=world, before=before).ended_well()
    assert weights_of(run) == weights_of(only(world / f"calm-{error}"))
    assert not list(run.glob("*.held")) + list(run.glob(".*.held"))
    (run / ".lock.held").write_text("4242\nelsewhere\n")  # of a process on a machine that cannot be asked
    assert (
        "is being worked on by another process (this file system has no locks: if that process has ended, remove"
        in start(*words, cwd=world, before=before).complaint()
    )
    name = errno.errorcode[error]
    tally(f"no file locks: `flock` answers {name}", 1, "nothing: a second process is refused, a dead holder skipped")


def run_status(run: Path) -> str:
    return Run(run).status()["status"]
