"""The key-gated additive form of GRAPE. Zhang et al. 2025, arXiv 2512.07805.

Formula: z(m, n) = q_m·k_n / √C - (m - n) s_h softplus(ω_h) softplus(u_h·k_n / √C)
    s_h is the slope of ALiBi, ω_h and u_h, of unit length, are learned, for every head h
Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, D width of the residual stream, H heads, C channels of
a head.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.ops.sdpa import biased
from posexp.schemes import exact_type
from posexp.schemes.alibi import Alibi, alibi_slopes
from posexp.schemes.per_layer import Block, BlockwiseAttention, PerLayer


class KeyGates(BlockwiseAttention):
    """The gates of one block: every key has a slope of its own in each head."""

    relative = True
    exact = False  # the fused kernel takes half precision

    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.direction_HC = nn.Parameter(torch.randn(dims.n_head, dims.head_dim))
        self.rate_H = nn.Parameter(torch.full((dims.n_head,), math.log(math.expm1(1.0))))  # a factor of 1

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        scale = self.dims.head_dim**-0.5
        slope_H = F.softplus(self.rate_H) * self.rate_H.new_tensor(alibi_slopes(self.dims.n_head))
        unit_HC1 = F.normalize(self.direction_HC, dim=-1)[..., None]
        for block in blocks:
            gate_BHK = F.softplus(block.k.to(exact_type(block.k)) @ unit_HC1 * scale)[..., 0]
            gap_BQK = pos_BT[:, block.rows, None] - pos_BT[:, None, block.keys]
            bias_BHQK = -gap_BQK[:, None] * (slope_H[:, None] * gate_BHK)[:, :, None]
            yield biased(block.q, block.k, block.v, block.hide(bias_BHQK), scale)


class Grape(PerLayer):
    """A penalty linear in distance, whose slope is a gate computed from the key, in every head and block.

    The gate reads keys as attention compares them. Directions u start at random, and the factors softplus(ω) at 1, so
    that slopes start at about 0.69 of ALiBi's (model-architectures/GRAPE, model/llama-mha-grape-a-keygated.py). The
    multiplicative form is in grape_m.py.
    """

    def __init__(self, dims: Dims):
        super().__init__(dims, lambda: KeyGates(dims))

    def notes(self) -> list[str]:
        return Alibi(self.dims).notes()
