"""Signals: what asks a command to stop, how training does, and how a job goes back into its queue.

SIGINT stops, and so does every signal of STOPPING. SLURM sends a job of submitit's SIGUSR2 before its time limit and,
where the cluster is set so, before preempting it; such a job is then put back into the queue. Training finishes its
step and saves. All other work ends at once: whatever is written is whole or absent at any moment.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from posexp.errors import PosexpError, Stopped
from posexp.jobs.slurm import preempted
from posexp.output.console import say

# Seconds that a step may take to end after a signal. A first step is compiled, for minutes, and has nothing to save;
# SLURM kills `signal_delay_s` (configs/hydra/launcher/submitit_slurm.yaml, 120) after its signal.
PATIENCE = 60.0
# What a terminal (closed, lost, Ctrl-\), a limit on CPU seconds and schedulers send before they kill.
STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2)
RETRY = 0.01  # seconds until what Python dropped is raised again

Handler = Callable[[int, FrameType | None], None]


def heed(handler: Handler, *more: int) -> dict[int, Any]:
    """Handles the signals that stop, and `more`, by `handler`; gives their handlers from before.

    A signal that is ignored stays ignored: nohup has done so, or posexp/training/processes.py.
    """
    asked = [signum for signum in STOPPING if signal.getsignal(signum) is not signal.SIG_IGN]
    return {signum: signal.signal(signum, handler) for signum in (*asked, *more)}


def stop(signum: int, frame: FrameType | None) -> None:
    """Ends the command like Ctrl-C does, once: what is being put in order then is left alone."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    insist(Stopped(f"stopped by {signal.Signals(signum).name}; repeat the command to go on", signum))


def insist(on: Stopped) -> NoReturn:
    """Raises it from a signal's handler, again where Python drops it: what is raised while an object is finalised."""

    def again(signum: int, frame: FrameType | None) -> None:
        raise on

    def dropped(what: Any) -> None:
        if what.exc_value is not on:
            return sys.__unraisablehook__(what)
        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, RETRY)

    sys.unraisablehook = dropped
    raise on


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects signals instead of dying of them. A second SIGINT or SIGQUIT interrupts at once, as does a step without
    end.

    Raises Stopped if the work within fails after one: schedulers signal compilers and other processes below, too.
    """
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if received and signum in (signal.SIGINT, signal.SIGQUIT):
            raise KeyboardInterrupt
        if received:
            return
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        received.append(signum)
        with suppress(RuntimeError):  # the signal came while another line was being written
            say(f"{signal.Signals(signum).name}: saving, then stopping")

    def enough(signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(received[0]).name
        line = f"stopped by {name} {PATIENCE:g} s ago, in a step that did not end; repeat the command"
        insist(Stopped(line, received[0]))

    before = heed(note, signal.SIGINT) | {signal.SIGALRM: signal.signal(signal.SIGALRM, enough)}
    try:
        yield received
    except Exception as error:
        if not received or isinstance(error, PosexpError):
            raise
        name = signal.Signals(received[0]).name
        raise Stopped(
            f"stopped by {name} within a step; the same command goes on from the last checkpoint", received[0]
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def in_a_job() -> Iterator[None]:
    """Around the work of a launcher's job. What submitit does on its signal, it does when the work has ended.

    Raises SystemExit instead of Stopped: 255 if the job is in its queue again, else 128 + signal.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        yield
        return
    asked = signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]  # as submitit reads it
    put_back: Any = signal.getsignal(asked)
    before = heed(stop)
    try:
        yield
    except Stopped as end:
        say(f"posexp: {end}")
        for each in STOPPING:  # SLURM ends what it puts back by SIGTERM: the one that asks it to must not die of that
            signal.signal(each, signal.SIG_IGN)
        if callable(put_back) and (end.signum == asked or preempted()):
            try:
                put_back(asked, None)  # counts time-outs, calls scontrol requeue, exits; of several ranks the first
            except subprocess.CalledProcessError:
                say("posexp: this job cannot be put back into its queue, or SLURM has done so itself")
            raise SystemExit(255) from None
        raise SystemExit(128 + end.signum) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
