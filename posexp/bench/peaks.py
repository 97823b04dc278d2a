"""The peaks of GPUs in a dense bfloat16 matrix product, as their vendors state them."""

import re

# TFLOP/s by words of the name that PyTorch has for the GPU; without sparsity, with float32 sums. From the data sheets
# of NVIDIA (A100, L4, L40S, H100, H200, GH200, HGX B200; the Ada architecture's white paper) and of AMD (MI300X).
TFLOPS = {
    ("A100",): 312.0,
    ("H100",): 989.0,  # SXM
    ("H100", "PCIe"): 756.0,
    ("H100", "NVL"): 835.0,
    ("H200",): 989.0,  # SXM
    ("H200", "NVL"): 836.0,
    ("GH200",): 989.0,
    ("B200",): 2250.0,
    ("L4",): 121.0,
    ("L40S",): 362.0,
    ("RTX", "4090"): 165.0,
    ("MI300X",): 1307.0,
}


def vendor_peak(name: str) -> float | None:
    """Return operations per second, or None for an unknown GPU and for a part of one (MIG)."""
    words = set(re.split(r"[ -]", name))
    fitting = [key for key in TFLOPS if words.issuperset(key) and "MIG" not in words]
    return TFLOPS[max(fitting, key=len)] * 1e12 if fitting else None
