"""Which of the processes that train one run together this is. Read from the environment alone, at no cost.

torchrun says it, and posexp/training/processes.py in torchrun's words; srun says it in its own.
"""

import os
import subprocess
from dataclasses import dataclass

from posexp.errors import Misuse
from posexp.jobs.programs import ask

FIRST_PORT, PORTS = 20_000, 20_000  # where the processes of a SLURM step meet: below what systems hand out themselves


@dataclass(frozen=True)
class Place:
    """Process `rank` of `size`, the `local`-th on its machine; `one_machine`: all of them are on this one."""

    rank: int = 0
    size: int = 1
    local: int = 0
    one_machine: bool = True


def place() -> Place:
    """A process by itself is the first of one."""
    known = os.environ
    if "RANK" in known and "WORLD_SIZE" in known:
        rank, size = int(known["RANK"]), int(known["WORLD_SIZE"])
        return Place(rank, size, int(known.get("LOCAL_RANK", rank)), known.get("LOCAL_WORLD_SIZE") == str(size))
    # Not SLURM_NTASKS, which a batch script has too, though it is one process.
    if int(known.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in known:
        rank, size = int(known["SLURM_PROCID"]), int(known["SLURM_STEP_NUM_TASKS"])
        return Place(rank, size, int(known.get("SLURM_LOCALID", rank)), known.get("SLURM_STEP_NUM_NODES", "1") == "1")
    return Place()


def translate_slurm() -> None:
    """Says in torchrun's words, which PyTorch reads, what srun said in its own. Words that are there stay."""
    here, known = place(), os.environ
    known.setdefault("RANK", str(here.rank))
    known.setdefault("WORLD_SIZE", str(here.size))
    known.setdefault("LOCAL_RANK", str(here.local))
    if here.one_machine:
        known.setdefault("LOCAL_WORLD_SIZE", str(here.size))
    if "SLURM_PROCID" in known:
        known.setdefault("MASTER_ADDR", "127.0.0.1" if here.one_machine else first_machine())
        step = 31 * int(known.get("SLURM_JOB_ID", 0)) + int(known.get("SLURM_STEP_ID", 0))
        known.setdefault("MASTER_PORT", str(FIRST_PORT + step % PORTS))


def first_machine() -> str:
    """Of a SLURM step, whose list of machines may be folded: gpu[01-04]. Raises Misuse if scontrol cannot unfold it."""
    folded = os.environ["SLURM_STEP_NODELIST"]
    try:
        return ask("scontrol", "show", "hostnames", folded, seconds=20).stdout.split()[0]
    except (OSError, subprocess.TimeoutExpired, IndexError):
        raise Misuse(
            f"scontrol does not say which machines {folded} stands for: set MASTER_ADDR to the first"
        ) from None
