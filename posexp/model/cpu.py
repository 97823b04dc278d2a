"""Settings that make a CPU faster without changing results, set once by commands that compute.

The effect is measured in results/bench.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MKL, ONEDNN = "mkl", "onednn"
# A mode of oneDNN that computes in float32 on most CPUs, on AMD faster than MKL. On some CPUs with bfloat16 units the
# mode rounds to bfloat16, so its error is checked before use.
ROUTE = "bf16"
SLOW_WITH_MKL = "AuthenticAMD"  # by vendor and not by timing, since runs must not depend on the load of a machine
LOSSLESS = 4.0  # largest error that counts as float32, as a multiple of the default's
SIZES = ((512, 256, 768), (1024, 1024, 256))  # rows, inner width, columns: layers of a small model
# Parameters of mallopt (malloc.h). Blocks below MMAP_THRESHOLD are allocated on the heap, of which up to TRIM_THRESHOLD
# stays in the process when free. By default every large tensor is mapped anew, page by page.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
HEAP_BYTES = 1 << 28
keeps_memory = ContextVar("keeps_memory", default=True)  # false in a process of somebody else
GRAIN = 1 << 15  # elements for each thread of a parallel operation


def prepare(recorded: str | None = None) -> None:
    """Set up this process.

    A resumed run passes its `recorded` matrix multiplication, and reproduces the same bits if the machine supports it.
    """
    torch.set_flush_denormal(True)  # weights of far keys are denormal, ten times as slow as other numbers
    if keeps_memory.get():
        keep_memory()
    set_matmul(MKL if recorded == MKL else choose_matmul(recorded == ONEDNN))


@contextmanager
def preserved() -> Iterator[None]:
    """Restore after the block what posexp changes in PyTorch: random numbers and the settings of `prepare`.

    Memory is not kept in the block, since that cannot be undone. PyTorch's worker threads are started before it: a
    thread inherits the flushing of denormal numbers when it starts, and would flush them ever after.
    """
    torch.zeros(torch.get_num_threads() * GRAIN).add_(1)
    flushes, switch = float(torch.tensor(1e-42)) == 0, route()
    precision = getattr(switch, "fp32_precision", None)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    token = keeps_memory.set(False)
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        keeps_memory.reset(token)
        torch.set_flush_denormal(flushes)
        if switch is not None:
            switch.fp32_precision = precision


def matmul() -> str:
    """Return the library that multiplies float32 matrices, as recorded in rows and provenance."""
    return ONEDNN if getattr(route(), "fp32_precision", None) == ROUTE else MKL


def keep_memory() -> None:
    """Keep freed memory in the process, if the C library is glibc."""
    if not os.environ.get("MALLOC_MMAP_THRESHOLD_"):  # the user's own setting has priority
        with suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(MMAP_THRESHOLD, HEAP_BYTES)
            libc.mallopt(TRIM_THRESHOLD, HEAP_BYTES)


def release_memory() -> None:
    """Return free memory to the system, so that the next measurement of memory starts without it."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def route() -> Any | None:
    """Return PyTorch's setting for matrix multiplication by oneDNN, or None if the version has none."""
    switch = getattr(torch.backends.mkldnn, "matmul", None)
    return switch if torch.backends.mkldnn.is_available() and hasattr(switch, "fp32_precision") else None


def set_matmul(name: str) -> None:
    if (switch := route()) is not None:
        switch.fp32_precision = ROUTE if name == ONEDNN else "none"


@functools.cache
def choose_matmul(begun: bool = False) -> str:
    """Return ONEDNN if it is as exact as float32, and either faster on this CPU or used by a run that has `begun`.

    Otherwise return MKL, the default. The check takes some milliseconds.
    """
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
    """Return the vendor of the CPU as Linux names it, or "" if unknown."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return ""


def samples() -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    for M, K, N in SIZES:
        yield torch.randn(M, K, generator=draw), torch.randn(K, N, generator=draw)
