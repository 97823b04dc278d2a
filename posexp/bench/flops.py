"""What a decoder computes for a token, by the usual count, and how fast this process can multiply matrices.

The count (Kaplan et al. 2020, arXiv 2001.08361; Chowdhery et al. 2022, arXiv 2204.02311, appendix B): two operations
for each weight that a token is multiplied with, and causal attention, which sees half of all pairs, or those inside
a window. A backward pass computes twice as much as a forward pass. What is computed again, or for positions, is not
counted.

Shape suffixes: N rows and columns of a square matrix.
"""

import time
from typing import Any

import torch
from torch import Tensor, nn

from posexp.config.sections import Precision

SIZE = 2048  # of the square matrices whose product is called the peak
REPEATS = {"cpu": 1, "cuda": 50}  # a GPU is done before a clock could tell


def matmul_parameters(model: nn.Module, head: Tensor) -> int:
    """Weights that every token is multiplied with: those of linear layers, and the output layer `head` once, tied to
    the embedding or not."""
    linear: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's name for a linear layer
    ]
    return sum({id(weight): weight.numel() for weight in (head, *(module.weight for module in linear))}.values())


def flops_per_token(parameters: int, n_layer: int, d_model: int, keys: float, training: bool) -> float:
    """`parameters` as `matmul_parameters` counts them, `keys` that a query sees on average: half a sequence's tokens,
    but through a window."""
    forward = 2 * parameters + 4 * n_layer * keys * d_model
    return 3 * forward if training else forward


def matmul_peak(device: torch.device, precision: Precision) -> float:
    """Operations per second of one product of square matrices, just now."""
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
