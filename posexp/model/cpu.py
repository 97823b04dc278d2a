"""What makes a CPU compute faster without computing anything else. Set once, by the commands that compute.

Measured in results/bench.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MKL, ONEDNN = "mkl", "onednn"
# A call of oneDNN's that on most CPUs computes in float32, and on AMD's faster than MKL. On some CPUs with bfloat16
# units it really rounds; so it is only taken where it was seen not to.
ROUTE = "bf16"
SLOW_WITH_MKL = "AuthenticAMD"  # and not by timing: runs must not differ by how busy a machine was when they began
LOSSLESS = 4.0  # times the error of the default: what counts as float32's own
SIZES = ((512, 256, 768), (1024, 1024, 256))  # rows, inner width, columns: layers of a small model
# mallopt's parameters (malloc.h): blocks below the first are taken from the heap, which is given back to the system
# only when that much of it is free. Otherwise every large tensor is mapped anew, page by page.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
KEPT = 1 << 28


def prepare(recorded: str | None = None) -> None:
    """Sets up this process.

    A run that goes on names the matrix multiplication that it was `recorded` to begin with, and gets the same bits,
    where this machine has it.
    """
    torch.set_flush_denormal(True)  # exp of a far key's logit is one, and costs ten times an ordinary number
    keep_memory()
    set_matmul(MKL if recorded == MKL else choose_matmul(recorded == ONEDNN))


def matmul() -> str:
    """What float32 matrices are multiplied by, as rows and provenance record it."""
    return ONEDNN if getattr(route(), "fp32_precision", None) == ROUTE else MKL


def keep_memory() -> None:
    """Where the C library is glibc."""
    if not os.environ.get("MALLOC_MMAP_THRESHOLD_"):  # else the user has said it already
        with suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(MMAP_THRESHOLD, KEPT)
            libc.mallopt(TRIM_THRESHOLD, KEPT)


def release_memory() -> None:
    """Gives what was kept and is free back to the system, so that what is measured next is not hidden in it."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def route() -> Any | None:
    """PyTorch's switch for how oneDNN multiplies, where this version has it."""
    switch = getattr(torch.backends.mkldnn, "matmul", None)
    return switch if torch.backends.mkldnn.is_available() and hasattr(switch, "fp32_precision") else None


def set_matmul(name: str) -> None:
    if (switch := route()) is not None:
        switch.fp32_precision = ROUTE if name == ONEDNN else "none"


@functools.cache
def choose_matmul(begun: bool = False) -> str:
    """oneDNN's where it is as exact as float32, on CPUs on which it is faster or for a run that has `begun` with it;
    else the default. Takes some milliseconds."""
    if route() is None or not (begun or vendor() == SLOW_WITH_MKL):
        return MKL
    before = matmul()
    try:
        for a_MK, b_KN in samples():
            wanted_MN, error = a_MK.double() @ b_KN.double(), {}
            for name in (MKL, ONEDNN):
                set_matmul(name)
                error[name] = float((a_MK @ b_KN - wanted_MN).abs().max())
            if error[ONEDNN] > LOSSLESS * error[MKL]:
                return MKL
        return ONEDNN
    finally:
        set_matmul(before)


def vendor() -> str:
    """Of the CPU, as Linux names it; "" where that is not known."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return ""


def samples() -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    for M, K, N in SIZES:
        yield torch.randn(M, K, generator=draw), torch.randn(K, N, generator=draw)
