"""The parent of the processes that train one run: it starts and watches them for `posexp train trainer.devices=N`.

The processes read their rank from torchrun's environment variables, meet in a store of the parent, and write their
outcomes there.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from hydra.core.hydra_config import HydraConfig

from posexp.config.commands import TrainCommand
from posexp.errors import Misuse, Stopped
from posexp.jobs.ranks import place
from posexp.jobs.signals import STOPPING, heed, signals, stop
from posexp.model.device import choose_device
from posexp.output import console
from posexp.storage import untrusted
from posexp.training import distributed
from posexp.training.distributed import check_share
from posexp.training.meeting import HOST, loopback_store
from posexp.training.outcome import Alone, deserialise, serialise

PATIENCE = 5.0  # seconds until the others are killed after one has died
DONE, BEGUN = "done", "begun"

Ends = dict[int, Any]  # the outcome of each process that wrote one, by rank


def wanted(config: TrainCommand) -> bool:
    """Return whether to start processes, which torchrun, srun or this module may have done already."""
    return config.trainer.devices > 1 and place().size == 1


def spawn(work: Callable[[TrainCommand], object], config: TrainCommand) -> None:
    """Run `work(config)` in `trainer.devices` processes, and forward signals to them.

    Raises what a process raised, Stopped after a signal, Alone if a process died, and Misuse if there are too few GPUs
    or the sequences of a step cannot be divided equally. All processes have ended then.
    """
    size = config.trainer.devices
    check_share(config, size)
    if choose_device(config.device).type == "cuda" and size > torch.cuda.device_count():
        raise Misuse(f"trainer.devices={size}, but there are {torch.cuda.device_count()} GPUs here")
    store = loopback_store()
    command = HydraConfig.instance().cfg  # for the provenance of the run
    with signals_blocked():
        context = torch.multiprocessing.start_processes(
            process_main, (size, store.port, work, config, command), size, join=False
        )
    processes: list[BaseProcess] = context.processes
    try:
        signum = watch(processes, store)
        codes = [process.exitcode for process in processes]
        ends = outcomes(store, size)
    finally:  # processes still alive after one has died, or after a second Ctrl-C
        for process in processes:
            process.kill()
            process.join()
    error = cause(processes, codes, ends)
    if error is None and len(ends) < size:
        raise Stopped("stopped before training began; repeat the command to go on", signum)
    if isinstance(error, Stopped) and signum:
        error.signum = signum
    if error is not None:
        raise error


def watch(processes: list[BaseProcess], store: dist.TCPStore) -> int:
    """Wait until all have ended, or PATIENCE after one died. Return the signal that this process received, or 0."""
    forwarded, died = False, None
    with signals() as received, console.silence():  # the first process prints for all
        while alive := [process for process in processes if process.exitcode is None]:
            connection.wait([process.sentinel for process in alive], timeout=0.2)
            ends = outcomes(store, len(processes))
            stopped = [end["signum"] for end in ends.values() if end != DONE and end["kind"] == "stopped"]
            if received and not store.check([BEGUN]):
                break  # no process handles signals yet, so do not wait for them
            if (received or stopped) and not forwarded:
                forwarded = True
                for process in alive:
                    forward_signal(process, (received or stopped)[0])
            gone = [rank for rank, process in enumerate(processes) if process.exitcode is not None]
            if any(rank not in ends or (ends[rank] != DONE and ends[rank]["kind"] != "stopped") for rank in gone):
                died = died or time.monotonic()
                if time.monotonic() > died + PATIENCE:
                    break
    return received[0] if received else 0


def forward_signal(process: BaseProcess, signum: int) -> None:
    """Send SIGINT to a process for SIGINT, and SIGTERM for any other signal."""
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)


def outcomes(store: dist.TCPStore, size: int) -> Ends:
    return {rank: untrusted.parsed(store.get(str(rank))) for rank in range(size) if store.check([str(rank)])}


def cause(processes: list[BaseProcess], codes: list[int | None], ends: Ends) -> BaseException | None:
    """Return the error of a process that died without an outcome, else the first error, or None.

    `codes` are the exit codes of the processes before any was killed.
    """
    for rank, code in enumerate(codes):
        if code is not None and rank not in ends:
            how = f"ended with exit code {code}"
            if code < 0:
                how = f"was killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += ", possibly because memory ran out"
            return Alone(
                f"rank {rank} (process {processes[rank].pid}) {how}; the others are stopped, and the same command goes "
                "on from the last checkpoint"
            )
    errors = [end for end in ends.values() if end != DONE]
    if not errors:
        return None
    return deserialise(min(errors, key=lambda end: (end["kind"] == "lost", end["time"])))


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block stop signals while processes start, so that they receive them once they have handlers."""
    resource_tracker.ensure_running()  # its start unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *STOPPING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def process_main(
    rank: int, size: int, port: int, work: Callable[[TrainCommand], object], config: TrainCommand, command: Any
) -> None:
    """Run `work(config)` in a child process and write the outcome to the store."""
    os.setpgid(0, 0)  # only the parent receives Ctrl-C, and forwards it
    for kind in set(STOPPING) - {
        signal.SIGTERM,
        signal.SIGXCPU,
    }:  # likewise the signals that SLURM sends to all processes of a job
        signal.signal(kind, signal.SIG_IGN)
    heed(stop)
    here = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    meeting = {"MASTER_ADDR": HOST, "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ.update({name: str(value) for name, value in (here | meeting).items()})
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    HydraConfig.instance().cfg = command
    console.logger.disabled, distributed.watched = rank > 0, True
    store = dist.TCPStore(HOST, port)
    store.set(BEGUN, "")
    end = json.dumps(DONE)
    try:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())  # blocked signals arrive here
            work(config)
        finally:  # a signal that arrives between the end of the work and this line counts as its outcome
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *STOPPING})
    except BaseException as error:
        end = serialise(error)
    store.set(str(rank), end)
    raise SystemExit(0 if end == json.dumps(DONE) else 1)
