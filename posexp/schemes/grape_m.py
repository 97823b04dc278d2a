"""The multiplicative form of GRAPE without content. Zhang et al. 2025, arXiv 2512.07805, sections 2 and 3.

Formula: z(m, n) = (G_m q_m)·(G_n k_n) / √C
    G_m = exp(m Σ_i θ_i L_i), with the generator L_i = a_i b_iᵀ - b_i a_iᵀ of the plane of the channels of pair i
    θ_i = base^(-2i/C) exp(s_i / 16), with s_i learned from 0 on, for i = 0 .. C/2 - 1
Shape suffix: I rotated pairs of channels.
"""

import math

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes.per_layer import PerLayer
from posexp.schemes.rope import Rope

# The learned logarithms are divided by it, which divides their learning rate under Adam, as the authors do.
SLOWER = 16.0


class LearnedFrequencies(Rope):
    """The frequencies of one block, shared by its heads."""

    def __init__(self, dims: Dims, base: float):
        super().__init__(dims, base, 1.0)
        self.shift_I = nn.Parameter(torch.zeros(dims.head_dim // 2))

    def trained_frequencies(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        return super().trained_frequencies(device, dtype) * (self.shift_I.to(device, dtype) / SLOWER).exp()

    def angles(self, pos_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        theta_I = self.frequencies(pos_BT.shape[1], pos_BT.device, dtype)
        # In float32 far angles are too coarse; whole turns are taken off before rounding.
        return (pos_BT.double()[..., None] * theta_I.double()).remainder(2 * math.pi).to(dtype)


class GrapeM(PerLayer):
    """RoPE with frequencies that are learned in every block, and start as those of RoPE.

    Planes are pairs of channels, as in the authors' language models (model-architectures/GRAPE,
    model/llama-mha-grape-m-nonctx.py). Other planes or generators that do not commute would add nothing: a generator
    is skew-symmetric, and an orthogonal change of channels, which the projections of queries and keys can learn, splits
    it into such pairs (appendix D).
    """

    def __init__(self, dims: Dims, base: float):
        super().__init__(dims, lambda: LearnedFrequencies(dims, base))
        self.base = base
