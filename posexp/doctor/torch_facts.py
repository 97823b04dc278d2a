"""What PyTorch can do here, printed as JSON for posexp doctor: in a process of its own, which may crash or hang."""

import json
import sys
import warnings
from importlib.util import find_spec
from typing import Any

import torch

from posexp.attention import kernel_path
from posexp.config.sections import Device, Precision
from posexp.dims import Dims
from posexp.model import cpu, flash
from posexp.model.device import choose_device, choose_precision
from posexp.schemes import build_scheme

DIMS = Dims(d_model=128, n_head=4, n_layer=2, train_length=128)
CHANNELS = 64  # of a head of model=small and base
SCHEMES = ("rope", "alibi")  # one that rotates and one with a bias by distance: their kernels differ


def facts() -> dict[str, Any]:
    """Return versions, devices, and what `auto` chooses for device, precision and attention."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        device = choose_device(Device.auto)
    denormals = torch.set_flush_denormal(True)
    cpu.prepare()
    flash.activate(device, CHANNELS)
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip,
        "warnings": [str(each.message).splitlines()[0] for each in warned],
        "device": device.type,
        "gpus": [gpu(index) for index in range(torch.cuda.device_count())] if device.type == "cuda" else [],
        "threads": torch.get_num_threads(),
        "precision": choose_precision(Precision.auto, device).value,
        "native_bfloat16": device.type == "cpu" or torch.cuda.get_device_capability()[0] >= 8,
        "kernels": {name: kernel_path(build_scheme(name, DIMS), DIMS, device=device) for name in SCHEMES},
        "flash_attention": flash.active(device),
        "triton": find_spec("triton") is not None,
        "matmul": cpu.matmul(),
        "flushes_denormals": denormals,
    }


def gpu(index: int) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {"name": about.name, "free": free, "total": total, "capability": f"{about.major}.{about.minor}"}


if __name__ == "__main__":
    json.dump(facts(), sys.stdout)
