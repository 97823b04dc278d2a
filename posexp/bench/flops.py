"""The FLOPs of a decoder per token, and the matrix multiplication speed of this process.

FLOPs are counted as usual (Kaplan et al. 2020, arXiv 2001.08361; Chowdhery et al. 2022, arXiv 2204.02311, appendix B):
two operations for each weight that a token is multiplied with, and causal attention over half of all pairs, or over
those within a window. A backward pass counts twice a forward pass. Recomputation and positional operations are not
counted.

Shape suffixes: N rows and columns of a square matrix.
"""

import time
from typing import Any

import torch
from torch import Tensor, nn

from posexp.config.sections import Precision

SIZE = 2048  # rows of the square matrices
REPEATS = {"cpu": 1, "cuda": 50}  # a single product on a GPU is too short to time


def matmul_parameters(model: nn.Module, head: Tensor) -> int:
    """Return the number of weights in linear layers and the output layer `head`, which may be tied."""
    linear: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's name for a linear layer
    ]
    return sum({id(weight): weight.numel() for weight in (head, *(module.weight for module in linear))}.values())


def flops_per_token(parameters: int, n_layer: int, d_model: int, keys: float, training: bool) -> float:
    """Return FLOPs per token for the count of `matmul_parameters` and the mean number of keys visible to a query."""
    forward = 2 * parameters + 4 * n_layer * keys * d_model
    return 3 * forward if training else forward


def matmul_peak(device: torch.device, precision: Precision) -> float:
    """Measure the operations per second of a product of square matrices."""
    kind = torch.bfloat16 if precision is Precision.bfloat16 else torch.float32
    a_NN = torch.ones(SIZE, SIZE, device=device, dtype=kind)
    repeats = REPEATS.get(device.type, 1)
    synchronize(device)
    began = time.perf_counter()
    for _ in range(repeats):
        a_NN @ a_NN
    synchronize(device)
    return repeats * 2 * SIZE**3 / (time.perf_counter() - began)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
