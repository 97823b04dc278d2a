"""Selective RoPE. Movahedi et al. 2025, arXiv 2511.17388; timurcarstensen/selective-rope, modules/rotary.py.

Formula: z(m, n) = (R_m q_m)·(R_n k_n) / √C
    R_m rotates pair i of channels by base^(-2i/C) Σ_t g_t (s_h u_hi·x'_th), for t = 0 .. m and i = 0 .. C/2 - 1
    x'_th is the part h of x_t, and u_hi a learned vector, both of unit length; g_t = sigmoid(w_h·x'_t + b_h)
Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head, I pairs of channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import INIT_STD, Dims
from posexp.errors import Misuse
from posexp.schemes.carope import ContentRotation
from posexp.schemes.per_layer import PerLayer
from posexp.schemes.rope import rotary_frequencies

KERNEL = 4  # tokens of the convolution


class Phases(ContentRotation):
    """The phases of one block. With `conv` a causal depthwise convolution and a SiLU follow the projection."""

    def __init__(self, dims: Dims, base: float, conv: bool):
        super().__init__(dims)
        pairs = dims.head_dim // 2
        self.base = base
        self.direction_HCI = nn.Parameter(torch.randn(dims.n_head, dims.head_dim, pairs))
        self.size_H = nn.Parameter(torch.ones(dims.n_head))
        channels = dims.n_head * pairs
        self.conv = nn.Conv1d(channels, channels, KERNEL, groups=channels, bias=False) if conv else None
        self.gate = nn.Linear(dims.d_model, dims.n_head)
        nn.init.normal_(self.gate.weight, std=INIT_STD)
        nn.init.zeros_(self.gate.bias)

    def steps(self, x_BTD: Tensor) -> Tensor:
        x_BTHC = F.normalize(x_BTD.unflatten(2, (self.dims.n_head, -1)), dim=-1)
        phase_BTHI = torch.einsum("bthc,hci->bthi", x_BTHC, F.normalize(self.direction_HCI, dim=1))
        phase_BTHI = phase_BTHI * self.size_H[:, None]
        if self.conv is not None:
            before_BXT = F.pad(phase_BTHI.flatten(2).transpose(1, 2), (KERNEL - 1, 0))
            phase_BTHI = F.silu(self.conv(before_BXT)).transpose(1, 2).unflatten(2, phase_BTHI.shape[2:])
        theta_I = rotary_frequencies(self.dims.head_dim, self.base, x_BTD.device, phase_BTHI.dtype)
        return theta_I * self.gate(x_BTHC.flatten(2)).sigmoid()[..., None] * phase_BTHI


class SelectiveRope(PerLayer):
    """RoPE whose angle grows by a gated projection of every token instead of 1, for each head and block.

    It is the form of the authors' language models: a projection for each head and a gate. Their convolution makes
    angles depend on three earlier tokens, even past the edge of a window; it is off by default. Gates start as the
    decoder's matrices do, and the convolution as PyTorch's. In the authors' models it starts with a spread of 0.02,
    where all angles are about 0.
    """

    def __init__(self, dims: Dims, base: float, conv: bool):
        if base <= 0:
            raise Misuse(f"scheme.base={base} must be above 0")
        super().__init__(dims, lambda: Phases(dims, base, conv))
        self.base, self.conv = base, conv
