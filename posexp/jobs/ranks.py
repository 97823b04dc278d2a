"""The rank of this process among those that train one run, read from the environment alone.

torchrun and posexp/training/processes.py set torchrun's variables; srun sets SLURM's.
"""

import os
import subprocess
from dataclasses import dataclass

from posexp.errors import Misuse
from posexp.jobs.programs import ask

FIRST_PORT, PORTS = 20_000, 20_000  # of the rendezvous of a SLURM step: below the range of ephemeral ports


@dataclass(frozen=True)
class Place:
    """The rank of a process among `size`, its `local` rank on its machine, and whether all ranks share one machine."""

    rank: int = 0
    size: int = 1
    local: int = 0
    one_machine: bool = True


def place() -> Place:
    """Return the place of this process; without a launcher, rank 0 of 1."""
    known = os.environ
    if "RANK" in known and "WORLD_SIZE" in known:
        rank, size = int(known["RANK"]), int(known["WORLD_SIZE"])
        return Place(rank, size, int(known.get("LOCAL_RANK", rank)), known.get("LOCAL_WORLD_SIZE") == str(size))
    # Not SLURM_NTASKS: a batch script has that variable too, although it is one process.
    if int(known.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in known:
        rank, size = int(known["SLURM_PROCID"]), int(known["SLURM_STEP_NUM_TASKS"])
        return Place(rank, size, int(known.get("SLURM_LOCALID", rank)), known.get("SLURM_STEP_NUM_NODES", "1") == "1")
    return Place()


def translate_slurm() -> None:
    """Set the variables of torchrun, which PyTorch reads, from those of srun. Variables already set are kept.

    Raises Misuse if scontrol cannot expand the list of machines, as in gpu[01-04].
    """
    here, known = place(), os.environ
    known.setdefault("RANK", str(here.rank))
    known.setdefault("WORLD_SIZE", str(here.size))
    known.setdefault("LOCAL_RANK", str(here.local))
    if here.one_machine:
        known.setdefault("LOCAL_WORLD_SIZE", str(here.size))
    if "SLURM_PROCID" not in known:
        return
    step = 31 * int(known.get("SLURM_JOB_ID", 0)) + int(known.get("SLURM_STEP_ID", 0))
    known.setdefault("MASTER_PORT", str(FIRST_PORT + step % PORTS))
    if here.one_machine:
        known.setdefault("MASTER_ADDR", "127.0.0.1")
    elif "MASTER_ADDR" not in known:
        folded = known["SLURM_STEP_NODELIST"]
        try:
            known["MASTER_ADDR"] = ask("scontrol", "show", "hostnames", folded, seconds=20).stdout.split()[0]
        except (OSError, subprocess.TimeoutExpired, IndexError):
            line = f"scontrol cannot expand the node list {folded}: set MASTER_ADDR to its first machine"
            raise Misuse(line) from None
