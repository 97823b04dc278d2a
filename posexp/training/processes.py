"""Starts the processes that train one run together below this one, and watches them: `posexp train trainer.devices=N`.

They are told their place in torchrun's words, meet in a store that this process keeps, and leave word there of how
they ended.
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
from posexp.training.outcome import Alone, retold, told

PATIENCE = 5.0  # seconds that the others get to end by themselves after one has died
DONE, BEGUN = "done", "begun"

Ends = dict[int, Any]  # of each process that left word: how it ended


def wanted(config: TrainCommand) -> bool:
    """Whether processes are to be started: not where torchrun, srun or this module has started them already."""
    return config.trainer.devices > 1 and place().size == 1


def spawn(work: Callable[[TrainCommand], object], config: TrainCommand) -> None:
    """Does `work(config)` in `trainer.devices` processes.

    Raises what they raise; Alone, once all are stopped, if one dies; Misuse if there are too few GPUs or the windows of
    a step cannot be shared out. A signal is handed on, and Stopped raised when all have ended.
    """
    size = config.trainer.devices
    check_share(config, size)
    if choose_device(config.device).type == "cuda" and size > torch.cuda.device_count():
        raise Misuse(f"trainer.devices={size}, but there are {torch.cuda.device_count()} GPUs here")
    store = loopback_store()
    command = HydraConfig.instance().cfg  # which a run's provenance names
    with held_back():
        context = torch.multiprocessing.start_processes(
            process_main, (size, store.port, work, config, command), size, join=False
        )
    processes: list[BaseProcess] = context.processes
    try:
        signum = watch(processes, store)
        codes = [process.exitcode for process in processes]
        ends = words(store, size)
    finally:  # what is left after one has died, or after a second Ctrl-C
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
    """Until all have ended, or for PATIENCE after one has died. Gives the signal that this process got, or 0."""
    handed_on, died = False, None
    with signals() as received, console.silence():  # the first process says what it does
        while alive := [process for process in processes if process.exitcode is None]:
            connection.wait([process.sentinel for process in alive], timeout=0.2)
            ends = words(store, len(processes))
            stopped = [end["signum"] for end in ends.values() if end != DONE and end["kind"] == "stopped"]
            if received and not store.check([BEGUN]):
                break  # and save them the seconds until they could listen
            if (received or stopped) and not handed_on:
                handed_on = True
                for process in alive:
                    hand_on(process, (received or stopped)[0])
            gone = [rank for rank, process in enumerate(processes) if process.exitcode is not None]
            if any(rank not in ends or (ends[rank] != DONE and ends[rank]["kind"] != "stopped") for rank in gone):
                died = died or time.monotonic()
                if time.monotonic() > died + PATIENCE:
                    break
    return received[0] if received else 0


def hand_on(process: BaseProcess, signum: int) -> None:
    """Every signal but SIGINT is SIGTERM to those below."""
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)


def words(store: dist.TCPStore, size: int) -> Ends:
    return {rank: untrusted.parsed(store.get(str(rank))) for rank in range(size) if store.check([str(rank)])}


def cause(processes: list[BaseProcess], codes: list[int | None], ends: Ends) -> BaseException | None:
    """Why not all are done: one is gone without a word, or else the first that left one. None if all are done.

    `codes`: with what the processes ended by themselves."""
    for rank, code in enumerate(codes):
        if code is not None and rank not in ends:
            how = f"ended with exit code {code}"
            if code < 0:
                how = f"was killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += ", as the system does where memory ends"
            return Alone(
                f"rank {rank} (process {processes[rank].pid}) {how}; the others are stopped, and the same command goes "
                "on from the last checkpoint"
            )
    errors = [end for end in ends.values() if end != DONE]
    if not errors:
        return None
    return retold(min(errors, key=lambda end: (end["kind"] == "lost", end["time"])))


@contextmanager
def held_back() -> Iterator[None]:
    """Processes that start in this block get a signal to stop only once they can take it."""
    resource_tracker.ensure_running()  # which lets signals through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *STOPPING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def process_main(
    rank: int, size: int, port: int, work: Callable[[TrainCommand], object], config: TrainCommand, command: Any
) -> None:
    """What each of the processes does."""
    os.setpgid(0, 0)  # Ctrl-C is for the one that watches, which hands it on
    for kind in set(STOPPING) - {signal.SIGTERM, signal.SIGXCPU}:  # likewise what SLURM tells all processes of a job
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
        signal.pthread_sigmask(signal.SIG_SETMASK, set())  # what was held back arrives here
        work(config)
    except BaseException as error:
        end = told(error)
    for kind in (signal.SIGINT, *STOPPING):  # it is ending
        signal.signal(kind, signal.SIG_IGN)
    store.set(str(rank), end)
    raise SystemExit(0 if end == json.dumps(DONE) else 1)
