"""Whatever a terminal or a scheduler sends before it kills: training saves its step and says so."""

import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from support.faults import SMALL, Command, only, start, write_text

from posexp.errors import Stopped
from posexp.jobs.signals import heed, signals, stop
from posexp.runs import checkpoint
from posexp.runs.run import Run

pytestmark = pytest.mark.slow

TRAIN = ["train", "+scheme=rope", *SMALL, "train.tokens=100000000", "train.checkpoint_every=1000000"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    write_text(folder / "text")
    return folder


def begun(world: Path, results: str, *words: str, **more) -> Command:
    """A run without end that has taken a step and saved none."""
    command = start(*TRAIN, *words, f"results={results}", cwd=world, **more)
    while not any((world / results).glob("*/*/metrics.jsonl")) or not Run(only(world / results)).status().get("step"):
        assert command.alive(), command.said
        time.sleep(0.02)
    return command


def stopped_at_a_saved_step(run: Run, reason: str) -> None:
    status = run.status()
    assert (status["status"], status["reason"]) == ("stopped", reason)
    assert checkpoint.steps(run.folder / "checkpoint") == [status["step"]]


@pytest.mark.parametrize(
    "signum", [signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1], ids=lambda s: s.name
)
def test_every_signal_that_ends_a_program_saves_and_says_so(world, signum):
    command = begun(world, signum.name, before=partial(signal.signal, signum, signal.SIG_DFL))
    command.signal(signum)
    assert command.wait() == 128 + signum, command.said
    assert f"{signum.name}: saving, then stopping" in command.said
    assert command.said.splitlines()[-1].endswith("and saved; the same command goes on")
    stopped_at_a_saved_step(Run(only(world / signum.name)), signum.name)


def take_terminal(name: str) -> None:
    """As the terminal that a shell runs in: its end is told by SIGHUP, and nothing can be written to it after."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    terminal = os.open(name, os.O_RDWR)
    for standard in range(3):
        os.dup2(terminal, standard)
    os.close(terminal)


@linux
def test_a_closed_terminal_stops_training_with_its_step_saved(world):
    ours, theirs = pty.openpty()
    command = begun(world, "closed", before=partial(take_terminal, os.ttyname(theirs)))
    os.close(theirs)
    os.close(ours)
    assert command.wait() == 128 + signal.SIGHUP
    stopped_at_a_saved_step(Run(only(world / "closed")), "SIGHUP")


def lose_listener() -> None:
    """As `posexp train 2>&1 | tee log` when Ctrl-C has ended tee."""
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(reader)


def test_a_reader_that_has_ended_stops_nothing(world):
    command = begun(world, "unheard", before=lose_listener)
    command.signal(signal.SIGTERM)
    assert command.wait() == 128 + signal.SIGTERM
    stopped_at_a_saved_step(Run(only(world / "unheard")), "SIGTERM")


def test_what_is_ignored_stays_ignored(world):
    """nohup's SIGHUP."""
    command = begun(world, "nohup", before=partial(signal.signal, signal.SIGHUP, signal.SIG_IGN))
    command.signal(signal.SIGHUP)
    command.signal(signal.SIGTERM)
    assert command.wait() == 128 + signal.SIGTERM
    stopped_at_a_saved_step(Run(only(world / "nohup")), "SIGTERM")


@pytest.mark.parametrize("module", ["omegaconf", "torch"])
def test_ctrl_c_while_importing_is_one_line(tmp_path, module):
    """In the imports before the command line is read, and in those after: an import that never ends stands for both."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Waits:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == '{module}':\n"
        "            print('here', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Waits())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "posexp", "train", "+scheme=rope", "data=files", "data.paths=none"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "posexp: interrupted; repeat the command to go on\n")


def test_a_signal_after_a_stop_does_not_interrupt_the_clean_up():
    before = heed(stop)
    try:
        with pytest.raises(Stopped, match="saved"), signals():
            raise Stopped("saved", signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@pytest.mark.parametrize("made_of_it", ["raise RecursionError('in an import')", "pass"])
def test_a_stop_that_a_library_turns_into_another_error_or_drops_still_ends_as_a_stop(tmp_path, made_of_it):
    code = (
        "import os, signal, sys, time\n"
        "from posexp.cli import main\n"
        "from posexp.jobs import signals\n"
        "signals.RETRY = 0.2\n"
        "def work(*words):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except BaseException:\n"
        f"        {made_of_it}\n"
        "    time.sleep(50)\n"
        "main.run_hydra = work\n"
        "sys.argv = ['posexp', 'runs']\n"
        "sys.exit(main.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143, done.stderr
    assert done.stderr == "posexp: stopped by SIGTERM; repeat the command to go on\n"
