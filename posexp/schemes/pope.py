"""Polar coordinate positions (PoPE). Gopalakrishnan et al. 2025, arXiv 2509.10534, section 3.

Formula: z(m, n) = Σ_c softplus(q_m[c]) softplus(k_n[c]) cos(d base^(-c/C) - phase_c) / √C, for c = 0 .. C - 1
Shape suffixes: B batch, T tokens, H heads, C channels of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import exact_type
from posexp.schemes.rope import Layout, Rope


class Pope(Rope):
    """Channels in polar coordinates: length softplus(q_c) from content, angle position * base^(-c/C) from position.

    Logits are the sum over c of softplus(q_c) softplus(k_c) cos(distance * base^(-c/C) - phase_c), scaled by C^-0.5.
    `phase_HC` (radians) is learned, from -2 pi to 0, and shared by all blocks (x-transformers, PolarEmbedding).
    """

    def __init__(self, dims: Dims, base: float):
        super().__init__(dims, base, 1.0, Layout.half)
        self.rotary_dim = 2 * dims.head_dim  # as many frequencies as channels, since each channel rotates alone
        self.phase_HC = nn.Parameter(torch.zeros(dims.n_head, dims.head_dim))

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys twice as wide: cosines, then sines."""
        exact = exact_type(q_BHTC)
        angle_B1TC = self.angles(pos_BT, exact)[:, None]
        phase_H1C = self.phase_HC.to(exact).clamp(-2 * math.pi, 0)[:, None]
        return self.polar(q_BHTC, angle_B1TC), self.polar(k_BHTC, angle_B1TC + phase_H1C)

    def polar(self, x_BHTC: Tensor, angle_BHTC: Tensor) -> Tensor:
        size_BHTC = F.softplus(x_BHTC.to(angle_BHTC.dtype)) * self.magnitude
        return torch.cat((size_BHTC * angle_BHTC.cos(), size_BHTC * angle_BHTC.sin()), dim=-1).type_as(x_BHTC)

    def extra_repr(self) -> str:
        return f"base={self.base:g}, frequencies={self.dims.head_dim}"
