"""Schemes with one kind of bias, and inputs for attention.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, N distances.
"""

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import Scheme

DIMS = Dims(d_model=16, n_head=2, n_layer=2, train_length=64)


class PerDistance(Scheme):
    """A learned bias for every distance."""

    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.bias_HN = nn.Parameter(torch.randn(dims.n_head, 1024, generator=torch.Generator().manual_seed(2)))

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        return self.bias_HN[:, gap_N]


class PerPosition(Scheme):
    """A learned bias that is not a function of distance, and differs from sequence to sequence."""

    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.wave_H = nn.Parameter(torch.linspace(0.5, 2.0, dims.n_head))

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor:
        mixed_BQK = 0.013 * pos_BQ[:, :, None] * 0.9 - 0.07 * pos_BK[:, None, :]
        return 2 * torch.sin(self.wave_H[:, None, None] * mixed_BQK[:, None])


def inputs(T: int, device: str = "cpu") -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """q, k and v, positions of two sequences that differ, the block's input, and a gradient for the output."""
    draw = torch.Generator().manual_seed(T)
    qkv = [torch.randn(2, 2, T, 8, generator=draw).to(device).requires_grad_() for _ in range(3)]
    pos_BT = torch.stack((torch.arange(T), 3 * torch.arange(T) + 1)).to(device)
    x_BTD, slope_BHTC = torch.randn(2, T, 16, generator=draw), torch.randn(2, 2, T, 8, generator=draw)
    return qkv, pos_BT, x_BTD.to(device), slope_BHTC.to(device)
