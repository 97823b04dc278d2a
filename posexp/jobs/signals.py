"""The handling of signals: which ones stop a command, how training stops, and how a job is requeued.

SIGINT and every signal of STOPPING stop a command. SLURM sends a submitit job SIGUSR2 before its time limit and, on
clusters configured for it, before preemption; such a job is then requeued. Training finishes its step and saves. All
other work ends at once, because files are written atomically.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from posexp.errors import PosexpError, Stopped
from posexp.jobs.slurm import preempted
from posexp.output.console import say

# Seconds that a step may take to end after a signal. A first step compiles for minutes and has nothing to save.
# SLURM kills a job `signal_delay_s` (configs/hydra/launcher/submitit_slurm.yaml, 120) after its signal.
PATIENCE = 60.0
# Sent by a terminal (closed, lost, Ctrl-\), by a limit on CPU seconds and by schedulers before SIGKILL.
STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2)
RETRY = 5.0  # seconds until an exception that did not end the work is raised again

Handler = Callable[[int, FrameType | None], None]
stopped: list[Stopped] = []  # by `stop`: a library that is being imported may turn the exception into another one


def heed(handler: Handler, *more: int) -> dict[int, Any]:
    """Install `handler` for the signals of STOPPING and `more`; return the previous handlers.

    Ignored signals of STOPPING stay ignored, as nohup and posexp/training/processes.py require.
    """
    asked = [signum for signum in STOPPING if signal.getsignal(signum) is not signal.SIG_IGN]
    return {signum: signal.signal(signum, handler) for signum in (*asked, *more)}


def stop(signum: int, frame: FrameType | None) -> None:
    """End the command as Ctrl-C does. Later signals are ignored, so that clean-up is not interrupted."""
    ignore_signals()
    stopped.append(Stopped(f"stopped by {signal.Signals(signum).name}; repeat the command to go on", signum))
    insist(stopped[0])


def ignore_signals() -> None:
    """Let no signal interrupt what follows."""
    for signum in (*STOPPING, signal.SIGINT, signal.SIGALRM):
        signal.signal(signum, signal.SIG_IGN)


def insist(on: Stopped) -> NoReturn:
    """Raise `on` from a signal handler, and again every RETRY seconds until `main` returns.

    Python drops exceptions that are raised while an object is finalised, and libraries some that are raised while
    they are imported.
    """

    def again(signum: int, frame: FrameType | None) -> None:
        raise on

    def dropped(what: Any) -> None:
        if what.exc_value is not on:
            sys.__unraisablehook__(what)

    sys.unraisablehook = dropped
    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, RETRY, RETRY)
    raise on


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect signals instead of ending the process.

    A second SIGINT or SIGQUIT interrupts at once, as does a step that takes longer than PATIENCE. Outside the main
    thread, which alone can handle signals, none are collected. Raises Stopped if the block fails after a signal:
    schedulers also signal compilers and other child processes.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        if received and signum in (signal.SIGINT, signal.SIGQUIT):
            raise KeyboardInterrupt
        if received:
            return
        received.append(signum)
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, enough)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        with suppress(RuntimeError):  # the signal arrived while another line was being printed
            say(f"{signal.Signals(signum).name}: saving, then stopping")

    def enough(signum: int, frame: FrameType | None) -> None:
        line = f"stopped by {signal.Signals(received[0]).name} {PATIENCE:g} s ago, in a step that did not end"
        insist(Stopped(f"{line}; repeat the command", received[0]))

    if stopped:  # a library has dropped the exception
        raise stopped[0]
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before |= heed(note, signal.SIGINT)
    ended = False
    try:
        yield received
    except Stopped:
        ended = True
        raise
    except Exception as error:
        if not received or isinstance(error, PosexpError):
            raise
        line = f"stopped by {signal.Signals(received[0]).name} within a step"
        raise Stopped(f"{line}; the same command goes on from the last checkpoint", received[0]) from error
    finally:
        if received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in before.items():
            # a further signal must not interrupt the clean-up either
            signal.signal(signum, signal.SIG_IGN if ended and handler is stop else handler)


@contextmanager
def in_a_job() -> Iterator[None]:
    """Run a launcher's job, and call submitit's handler of its signal only after the work has ended.

    Raises SystemExit instead of Stopped: 255 if the job is requeued, else 128 + signal.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        yield
        return
    asked = signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]  # as submitit reads it
    requeue: Any = signal.getsignal(asked)
    before = heed(stop)
    try:
        yield
    except Stopped as end:
        ignore_signals()  # SLURM ends a requeued job by SIGTERM, which this process must survive
        say(f"posexp: {end}")
        if callable(requeue) and (end.signum == asked or preempted()):
            try:
                requeue(asked, None)  # counts timeouts, calls scontrol requeue on the first rank, exits
            except subprocess.CalledProcessError:
                say("posexp: this job cannot be requeued, or SLURM has requeued it already")
            raise SystemExit(255) from None
        raise SystemExit(128 + end.signum) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
