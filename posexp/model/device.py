"""Where and in which precision a run computes."""

import sys
from contextlib import AbstractContextManager

import torch

from posexp.config.sections import Device, Precision
from posexp.errors import Misuse


def choose_device(wanted: Device) -> torch.device:
    """Raises Misuse if a GPU is asked for where there is none."""
    if wanted is Device.cuda and not torch.cuda.is_available():
        raise Misuse("device=cuda: no CUDA device is available here; leave device out, or set device=cpu")
    if wanted is Device.auto:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted.value)


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    if wanted is Precision.auto:
        return Precision.bfloat16 if device.type == "cuda" else Precision.float32
    return wanted


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """bfloat16 autocast, or nothing. Schemes compute positions in float32 in either."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bfloat16)


class Graphs:
    """Watches torch.compile: a training step is compiled once, and every graph made later costs seconds."""

    SETTLED = 20  # steps after which all that a step needs should have been compiled

    def __init__(self, first_step: int):
        self.first_step, self.known, self.told = first_step, 0, False

    def made_again(self, step: int) -> str:
        """A line to tell if graphs were compiled since the last call; "" while training settles, and once told."""
        made = compiled_graphs()
        again = made > self.known and step > self.first_step + self.SETTLED and not self.told
        self.known, self.told = made, self.told or again
        return f"compiled again by step {step}, {made} graphs so far: try train.compile=false" if again else ""


def compiled_graphs() -> int:
    """How many graphs torch.compile has made in this process."""
    if "torch._dynamo" not in sys.modules:
        return 0
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
