"""Where and in which precision a run computes."""

from contextlib import AbstractContextManager

import torch

from posexp.config import Device, Precision
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


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
