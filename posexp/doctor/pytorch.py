"""PyTorch and what posexp will use of it, examined in a process of its own: an import may crash, or take minutes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import posexp
from posexp.doctor.findings import Finding, finding, problem, size
from posexp.storage import untrusted

PATIENCE = 60.0  # seconds for the import, which takes tens of seconds from a cold network disk
REINSTALL = "python -c 'import torch' shows the whole error; pip install --force-reinstall torch"


def pytorch() -> list[Finding]:
    root = str(Path(posexp.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            # -P: files in the user's folder must not shadow library modules
            [sys.executable, "-P", "-m", "posexp.doctor.torch_facts"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return [finding("torch", f"not imported within {PATIENCE:g} seconds", "install it on a local disk")]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"])[-1]
        return [problem("torch", f"cannot be imported: {last[:200]}", REINSTALL)]
    return list(of_facts(untrusted.json_of(done.stdout.splitlines()[-1].encode())))


def of_facts(known: dict[str, Any]) -> list[Finding]:
    """Return the findings from what torch_facts.py has printed."""
    on_gpu, build = known["device"] == "cuda", f"CUDA {known['cuda']}" if known["cuda"] else "CPU"
    kernels = [f"{scheme}: {kernel}" for scheme, kernel in known["kernels"].items()]
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    unable = [] if known["triton"] else ["Triton"]
    unable += [] if compiler else ["a C compiler"]
    if on_gpu:
        kernels.append(f"flash attention: {known['flash_attention']}")
        kernels.append("train.compile " + (f"fails without {' and '.join(unable)}" if unable else "works"))
    else:
        kernels.append("flex and train.compile need a GPU")
    narrow = "" if known["native_bfloat16"] else "train.precision=float32: this GPU emulates bfloat16"
    return [
        finding("torch", f"{known['version']}, build for {build}"),
        *devices(known),
        finding("precision", f"{known['precision']} by default on this device", narrow),
        finding("attention", ", ".join(kernels), "train.compile=false" if on_gpu and unable else ""),
        *([] if on_gpu else [arithmetic(known)]),
    ]


def devices(known: dict[str, Any]) -> list[Finding]:
    if known["gpus"]:
        return [
            finding(
                f"gpu {index}",
                f"{gpu['name']}, {size(gpu['free'])} of {size(gpu['total'])} free, capability {gpu['capability']}",
                "" if gpu["free"] > gpu["total"] / 2 else "nvidia-smi shows who uses it; CUDA_VISIBLE_DEVICES chooses",
            )
            for index, gpu in enumerate(known["gpus"])
        ]
    there = shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists()
    remedy = ""
    if there and not known["cuda"]:
        remedy = "install PyTorch's build for CUDA: https://pytorch.org/get-started/locally"
    elif there:
        remedy = f"nvidia-smi must list it, with a driver for CUDA {known['cuda']}"
    why = f" ({known['warnings'][0]})" if known["warnings"] else ""
    return [finding("device", f"cpu, {'its GPU cannot be used' if there else 'no GPU'}{why}", remedy)]


def arithmetic(known: dict[str, Any]) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    fact = f"{known['threads']} threads on {cores} cores, load {load:.1f}, matrix products by {known['matmul']}"
    remedies = [] if known["flushes_denormals"] else ["far attention is slow: this CPU keeps denormal numbers"]
    remedies += [f"OMP_NUM_THREADS={cores}"] if known["threads"] > cores else []
    remedies += ["other processes use the cores: top shows which"] if load > 1.5 * cores else []
    return finding("cpu", fact, "; ".join(remedies))
