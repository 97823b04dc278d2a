"""What else goes wrong on a cluster: memory, numbers, clocks, mounts and other people's processes."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.command import SCRIPT, files_of
from support.faults import (
    FULL,
    HERE,
    SMALL,
    Command,
    losses_of,
    only,
    rows_of,
    start,
    tally,
    times,
    weights_of,
    write_text,
)

from posexp.runs import checkpoint
from posexp.runs.run import Run
from posexp.storage import atomic, jsonl

pytestmark = [pytest.mark.slow, pytest.mark.faults]

TRAIN = ["train", "+scheme=rope", *SMALL]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text, a token store, a finished run in calm/, and schemes with something wrong."""
    folder = tmp_path_factory.mktemp("faults")
    write_text(folder / "text")
    shutil.copy(HERE / "support" / "failing.py", folder)
    start(*TRAIN, "results=calm", cwd=folder).ended_well()
    return folder


def test_nan_in_a_batch_fails_the_run_before_it_is_saved_and_again_when_it_is_repeated(world):
    words = ["train", "+scheme=rope", "scheme._target_=failing.Poison", "label=poison", *SMALL, "results=poisoned"]
    count = times(1, 10)
    for _ in range(1 + count):
        refused = start(*words, cwd=world).complaint()
        run = Run(only(world / "poisoned"))
        assert "the loss is no longer finite at step 24" in refused and "try a lower train.lr" in refused
        assert run.status()["status"] == "failed" and "no longer finite" in run.status()["reason"]
        assert checkpoint.steps(run.folder / "checkpoint") == [20, 16], "from before the first NaN"
        assert checkpoint.restore(run.folder / "checkpoint", pytest.fail) is not None
    tally("NaN in a batch", 1 + count, "nothing: the run fails with its reason, and the last good checkpoint stands")


def test_nan_in_saved_weights_is_not_gone_on_from(world):
    run = only(Path(shutil.copytree(world / "calm", world / "nan")))
    names = [name for name in load_file(last(run)) if not name.endswith(".step")]
    count = times(2, len(names))
    for name in names[:: -(-len(names) // count)]:
        tensors = load_file(last(run))
        tensors[name].view(-1)[0] = float("inf") if "exp_avg_sq" in name else float("nan")
        save_file(tensors, last(run))
        about = {"step": 40, "sha256": atomic.sha256(last(run))}
        last(run).with_suffix(".json").write_text(json.dumps(about))
        said = start(*TRAIN, "results=nan", cwd=world).ended_well()
        assert f"is damaged: {name} holds numbers that are not finite; trying the previous checkpoint" in said
        assert "training from step 36 to 40" in said
        assert weights_of(run) == weights_of(only(world / "calm"))
    tally("NaN or infinity in a saved tensor", count, "nothing: the checkpoint before serves, and equal bits result")


def last(run: Path) -> Path:
    return sorted(run.glob("checkpoint/*.safetensors"))[-1]


def saves(run: Path) -> bool:
    return any(run.glob("default/*/checkpoint/*.tmp"))


def test_sigterm_while_saving_saves_and_stops_and_the_same_command_goes_on(world):
    words = [*TRAIN, "model.d_model=192", "model.n_layer=2", "train.tokens=2048", "train.checkpoint_every=1"]
    start(*words, "results=large", cwd=world).ended_well()
    count, caught = times(1, 20), 0
    while caught < count:
        results = world / "stopped"
        command = start(*words, f"results={results}", cwd=world)
        while command.alive() and not saves(results):
            time.sleep(0.0005)
        command.signal(signal.SIGSTOP)
        caught += saves(results)  # still: the signal comes in the middle of a save
        command.signal(signal.SIGTERM)
        command.signal(signal.SIGCONT)
        assert command.wait() in (0, 128 + signal.SIGTERM), command.said
        if command.wait():
            assert "and saved; the same command goes on" in command.said and "Traceback" not in command.said
            assert Run(only(results)).status()["status"] == "stopped"
        start(*words, f"results={results}", cwd=world).ended_well()
        assert weights_of(only(results)) == weights_of(only(world / "large"))
        shutil.rmtree(results)
    tally("SIGTERM while saving", count, "nothing: the step is saved, and equal bits result")


@pytest.mark.parametrize("everyone", [False, True], ids=["to posexp alone", "to its compilers too"])
def test_sigterm_while_compiling_ends_in_a_line_and_the_same_command_goes_on(world, everyone, tmp_path):
    if not FULL:
        pytest.skip("compiling takes its time: scripts/faults does")
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler here")
    words = ["train", "+scheme=rope", "scheme._target_=failing.Compiled", "label=compiled", *SMALL]
    count = times(1, 5)
    for n in range(count):
        results, cache = tmp_path / str(n), tmp_path / f"cache-{n}"
        command = start(*words, f"results={results}", cwd=world, before=os.setsid, TORCHINDUCTOR_CACHE_DIR=str(cache))
        command.until("training from", 300)
        while command.alive() and not compilers(command):
            time.sleep(0.002)
        assert command.alive(), command.said
        (os.killpg if everyone else os.kill)(command.process.pid, signal.SIGTERM)
        code = command.wait()
        assert "Traceback" not in command.said, command.said
        assert code == 128 + signal.SIGTERM, (code, command.said)
        said = start(*words, f"results={results}", cwd=world, TORCHINDUCTOR_CACHE_DIR=str(cache)).ended_well()
        assert "same_targets 8: ppl" in said
    whom = "and its compilers" if everyone else "alone"
    tally(f"SIGTERM to posexp {whom} while `torch.compile` compiles", count, "the steps since the last checkpoint")


def compilers(command: Command) -> list[int]:
    """Processes of C++ compilers below it."""
    done = subprocess.run(["ps", "-eo", "pid,sid,comm"], capture_output=True, text=True, check=True)
    of = [line.split() for line in done.stdout.splitlines()[1:]]
    return [int(pid) for pid, sid, name in of if int(sid) == command.process.pid and name.startswith(("cc1", "g++"))]


def limit_memory(room: int) -> None:
    """The address space may grow by `room` bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + room
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@linux
def test_a_length_for_which_memory_gives_out_is_a_row_that_says_so_and_the_rest_goes_on(tmp_path):
    write_text(tmp_path / "text", documents=12, words=5000)
    start("train", "+scheme=alibi", *SMALL, "train.tokens=512", "results=calm", cwd=tmp_path).ended_well()
    words = ["eval", "wandb.mode=disabled", "device=cpu", "eval.attention=dense", "eval.targets=256"]
    words += ["eval.protocols=[nonoverlapping]", "--lengths", "16,128,512,4096"]
    count = times(1, 10)
    shutil.copytree(tmp_path / "calm", tmp_path / "plenty")
    start(*words, "results=plenty", cwd=tmp_path).ended_well()
    wanted = {row["length"]: row for row in rows_of(only(tmp_path / "plenty")) if row["kernel_path"] == "dense"}
    for n in range(count):
        shutil.copytree(tmp_path / "calm", tmp_path / f"little-{n}")
        room = (96 + 16 * n) << 20
        said = start(*words, f"results=little-{n}", cwd=tmp_path, before=partial(limit_memory, room)).ended_well()
        assert "nonoverlapping 4096: out of memory" in said
        rows = {row["length"]: row for row in rows_of(only(tmp_path / f"little-{n}")) if row["kernel_path"] == "dense"}
        assert rows.keys() == wanted.keys() and rows[4096]["status"] == "out of memory"
        for length in (16, 128):
            assert rows[length]["status"] == "ok"
            assert rows[length]["nll"] == pytest.approx(wanted[length]["nll"], rel=1e-5)
    again = start(*words, "results=little-0", cwd=tmp_path).ended_well()
    assert "nonoverlapping 4096: ppl" in again and "nonoverlapping 16:" not in again
    tally(
        "memory gives out at a long length (`RLIMIT_AS`)",
        count,
        "that row, which reports it; it is measured when there is room",
    )


def test_wandb_killed_in_the_middle_of_training_is_one_line_and_the_run_goes_on(world):
    count = times(1, 5)
    # wandb of an earlier test may have left its process's address, which the command would use instead of its own
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_SERVICE")}
    for n in range(count):
        log = world / f"wandb-{n}.txt"
        words = [*TRAIN, "wandb.mode=offline", f"results=wandb-{n}", "train.tokens=102400"]
        with log.open("w") as out:
            process = subprocess.Popen([str(SCRIPT), *words], cwd=world, stdout=out, stderr=out, env=own)
        while "training from" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # however busy the machine is, training does not end before the kill
        killed = below(process.pid)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        process.send_signal(signal.SIGCONT)
        assert process.wait(120) == 0, log.read_text()
        said = log.read_text()
        assert killed and "Traceback" not in said, said
        assert said.count("wandb is skipped; metrics.jsonl and rows.jsonl have everything") == 1, said
        assert Run(only(world / f"wandb-{n}")).status()["step"] == 400
        assert [step for step, _ in losses_of(only(world / f"wandb-{n}"))][-1] == 400
    tally("wandb's process killed in the middle of training", count, "wandb's copy, as a line says; the run continues")


def below(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    done = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()[1:]]
    children = [child for child, parent in pairs if parent == pid]
    return children + [other for child in children for other in below(child)]


@pytest.fixture
def read_only(world: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with the finished run's results on a read-only mount."""
    mount = tmp_path / "results"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "none", mount], capture_output=True).returncode:
        pytest.skip("mounting a file system takes root")
    try:
        shutil.copytree(world / "calm", mount, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@linux
def test_read_only_results_can_be_read_and_nothing_else_and_a_line_says_so(world, read_only):
    before = files_of(read_only)
    own = f"results={read_only}"
    evaluation = ["eval", "wandb.mode=disabled", "device=cpu"]
    refused = {
        "a new run": ["train", "+scheme=alibi", *SMALL, own],
        "a finished run": [*TRAIN, own],
        "rows": [*evaluation, "--lengths", "8,64", own],
        "report": ["report", own],
        "export": ["export", own],
    }
    for words in refused.values():
        line = start(*words, cwd=world).complaint()
        assert "Read-only file system" in line and str(read_only) in line, line
    said = start("runs", own, cwd=world).ended_well()
    assert "done" in said and "40/40" in said
    assert files_of(read_only) == before
    tally(
        "results on a read-only mount",
        len(refused) + 1,
        "nothing: `posexp runs` works, the others name the folder in a line",
    )


@linux
def test_a_run_being_trained_is_seen_as_running_on_a_read_only_mount(world, tmp_path):
    results, view = tmp_path / "results", tmp_path / "view"
    view.mkdir()
    results.mkdir()
    if os.geteuid() or subprocess.run(["mount", "--bind", results, view], capture_output=True).returncode:
        pytest.skip("mounting a file system takes root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
        command = start(*TRAIN, f"results={results}", cwd=world)
        command.until("training from")
        command.signal(signal.SIGSTOP)
        assert "running" in start("runs", f"results={view}", cwd=world).ended_well()
        command.kill()
        assert "interrupted" in start("runs", f"results={view}", cwd=world).ended_well()
    finally:
        subprocess.run(["umount", "-l", view], check=True)


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
def test_a_clock_that_jumps_neither_stops_nor_misleads(world):
    jumps = ["-400d", "+400d", "-1h", "+0", "-30y", "+5y"][: times(1, 6)]
    for n, jump in enumerate(jumps):
        clock = world / f"clock-{n}"
        clock.write_text("+0\n")
        own = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
        own |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "OMP_NUM_THREADS": "1"}
        log = world / f"clock-{n}.txt"
        with log.open("w") as out:
            words = [*TRAIN, "train.tokens=51200", f"results=jumped-{n}"]
            process = subprocess.Popen([str(SCRIPT), *words], cwd=world, env=os.environ | own, stdout=out, stderr=out)
        while process.poll() is None and "training from" not in log.read_text():
            time.sleep(0.01)
        clock.write_text(f"{jump}\n")
        assert process.wait(120) == 0, log.read_text()
        run = Run(only(world / f"jumped-{n}"))
        rows = jsonl.read_lines(run.metrics, pytest.fail)
        moments = [row["time"] for row in rows if "time" in row]
        assert jump == "+0" or max(abs(b - a) for a, b in pairwise(moments)) > 3000, "it jumped"
        speeds = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
        assert speeds and all(10 < speed < 10**8 for speed in speeds), speeds
        assert all(
            re.search(r"ETA \d:\d\d$|ETA 1\d:\d\d$", line) for line in log.read_text().splitlines() if "ETA" in line
        )
        assert all(
            row["tokens_per_second"] is None or row["tokens_per_second"] > 10
            for row in jsonl.read_lines(run.rows, pytest.fail)
        )
        said = start("runs", f"results=jumped-{n}", cwd=world).ended_well()
        assert "done" in said and "200/200" in said
    tally(
        "the clock jumps during training (libfaketime)",
        len(jumps),
        "nothing: speed and time left go by the monotonic clock",
    )
