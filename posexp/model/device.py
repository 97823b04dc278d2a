"""The device and the precision of a run."""

import sys
from contextlib import AbstractContextManager

import torch

from posexp.config.sections import Device, Precision
from posexp.errors import Misuse


def choose_device(wanted: Device) -> torch.device:
    """Return the device. Raises Misuse if a GPU is requested but not available."""
    if wanted is Device.cuda and not torch.cuda.is_available():
        raise Misuse("device=cuda: no CUDA device is available; omit device, or set device=cpu")
    if wanted is Device.auto:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted.value)


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    if wanted is Precision.auto:
        return Precision.bfloat16 if device.type == "cuda" else Precision.float32
    return wanted


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return a context of bfloat16 autocast, or none. Schemes compute positions in float32 in both."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bfloat16)


class Graphs:
    """A watch on torch.compile: a step is compiled once, and every later compilation costs seconds."""

    SETTLED = 20  # steps after which compilation should be complete

    def __init__(self, first_step: int):
        self.first_step, self.known, self.logged = first_step, 0, False

    def made_again(self, step: int) -> str:
        """Return a log line if graphs were compiled since the last call, at most once and after SETTLED steps."""
        made = compiled_graphs()
        again = made > self.known and step > self.first_step + self.SETTLED and not self.logged
        self.known, self.logged = made, self.logged or again
        return f"compiled again by step {step}, {made} graphs so far: try train.compile=false" if again else ""


def compiled_graphs() -> int:
    """Return the number of graphs that torch.compile has compiled in this process."""
    if "torch._dynamo" not in sys.modules:
        return 0
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
