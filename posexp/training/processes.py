"""The processes of `posexp train trainer.devices=N`, which train one run, and their parent.

PyTorch's multiprocessing, torchrun's own foundation, starts and watches the processes. They read their rank from
torchrun's environment variables, meet in a store of the parent, and write their outcomes there.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from hydra.core.hydra_config import HydraConfig
from torch.multiprocessing.spawn import ProcessContext, ProcessException

from posexp.config.commands import TrainCommand
from posexp.errors import Misuse, Stopped
from posexp.jobs.signals import PATIENCE, STOPPING, heed, ignore_signals, signals, stop
from posexp.model.device import choose_device
from posexp.output import closing, console
from posexp.training import distributed
from posexp.training.distributed import HOST, JOINED, check_share, loopback_store
from posexp.training.outcome import PeerLost, RankFailed, deserialise, serialise

GRACE = 5.0  # seconds until the others are stopped after one has died, and until they are killed after that
POLL = 0.2  # seconds
DONE = "done"  # a key of the store: the number of processes that succeeded
# Keys of the store: the first outcome of each kind. A failure is reported rather than a stop: when a checkpoint cannot
# be saved, only its writer fails. A lost peer is reported last, because the peer itself knows why it ended.
FAILED, STOPPED, LOST = OUTCOMES = ("failed", "stopped", "lost")


def spawn(work: Callable[[TrainCommand], object], config: TrainCommand) -> None:
    """Run `work(config)` in `trainer.devices` processes, and forward signals to them.

    Raises what a process raised, Stopped after a signal, RankFailed if a process died, and Misuse if there are too few
    GPUs or the sequences of a step cannot be divided equally. All processes have ended then.
    """
    size = config.trainer.devices
    check_share(config, size)
    if choose_device(config.device).type == "cuda" and size > torch.cuda.device_count():
        raise Misuse(f"trainer.devices={size}, but there are {torch.cuda.device_count()} GPUs here")
    store = loopback_store()
    command = HydraConfig.instance().cfg  # for the provenance of the run
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    resource_tracker.ensure_running()  # its start unblocks signals
    death = None
    with signals() as received, console.silence():  # the first process prints for all
        # The processes start with signals blocked, and receive them once they have handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *STOPPING})
        context = torch.multiprocessing.start_processes(
            process_main, (size, store.port, work, config, command), size, join=False
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            wait_for_all(context, store, received)
        except ProcessException as error:
            death = error
        finally:  # processes are alive after a second Ctrl-C, or if `watch` does not wait for them
            for process in context.processes:
                process.kill()
                process.join()
    signum = received[0] if received else 0
    if end := cause(store, death):
        if isinstance(end, Stopped) and signum:
            end.signum = signum
        raise end
    if store.add(DONE, 0) < size:
        raise Stopped("stopped before training began; repeat the command to go on", signum or signal.SIGINT)


def wait_for_all(context: ProcessContext, store: dist.TCPStore, received: list[int]) -> None:
    """Wait until all processes have ended, and forward a signal of this process or of one of them to the others.

    Returns early if a stop need not be waited for, or takes too long. Raises ProcessException if a process died or
    failed, after PyTorch has ended the others.
    """
    deadline = math.inf
    while not context.join(POLL, grace_period=GRACE) and time.monotonic() < deadline:
        if deadline < math.inf or not (received or store.check([STOPPED])):
            continue
        if store.add(JOINED, 0) < len(context.processes):
            return  # nothing is to be saved, and a process that waits for another one in PyTorch handles no signal
        deadline = time.monotonic() + PATIENCE + GRACE
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGINT if received[:1] == [signal.SIGINT] else signal.SIGTERM)


def cause(store: dist.TCPStore, death: ProcessException | None) -> BaseException | None:
    """Return the error of a process that died without an outcome, else the outcome to report, or None."""
    code = getattr(death, "exit_code", 1)
    if code > 0 and (found := [kind for kind in OUTCOMES if store.check([kind])]):
        return deserialise(store.get(found[0]))
    if death is None:
        return None
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        how += ", possibly because memory ran out"
    remedy = "the others are stopped, and the same command goes on from the last checkpoint"
    return RankFailed(f"rank {death.error_index} (process {death.error_pid}) {how}; {remedy}")


def process_main(
    rank: int, size: int, port: int, work: Callable[[TrainCommand], object], config: TrainCommand, command: Any
) -> None:
    """Run `work(config)` in a child process and write the outcome to the store. Exit with 1 after a failure.

    Exit with 0 after a stop, because PyTorch would end the others, one of which may still write the checkpoint.
    """
    os.setpgid(0, 0)  # only the parent receives Ctrl-C, and forwards it
    # SLURM sends these to all processes of a job
    for signum in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    heed(stop, signal.SIGINT)
    here = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    meeting = {"MASTER_ADDR": HOST, "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ.update({name: str(value) for name, value in (here | meeting).items()})
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    HydraConfig.instance().cfg = command
    console.logger.disabled = rank > 0
    store = distributed.parent = dist.TCPStore(HOST, port)
    try:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())  # blocked signals arrive here
            work(config)
            closing.say_all()
        finally:
            # What a handler raises until this line, or on it, is caught below, and no handler runs afterwards. A signal
            # cannot therefore end this process without an outcome. (A blocked signal would reach PyTorch's threads,
            # and Python would call its handler in the main thread.)
            ignore_signals()
    except BaseException as error:
        ignore_signals()  # unless a handler has interrupted the line above
        kind = STOPPED if isinstance(error, KeyboardInterrupt) else LOST if isinstance(error, PeerLost) else FAILED
        store.compare_set(kind, "", serialise(error))
        if kind == LOST:
            time.sleep(5 * POLL)  # the parent must first see how the peer ended
        raise SystemExit(0 if kind == STOPPED else 1) from None
    store.add(DONE, 1)
