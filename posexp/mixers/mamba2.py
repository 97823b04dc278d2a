"""Mamba-2: a state that forgets, as a product of decays within a chunk and a recurrence over chunks.

Formula: S_t = a_t S_(t-1) + s_t B_t x_t^T, y_t = S_t^T C_t + D x_t, with a_t = exp(-r s_t) and step sizes s_t > 0.
Dao and Gu 2024, arXiv 2405.21060, section 6 (the algorithm) and 7 (the layer).
Shape suffixes: B batch, T tokens, L tokens of a chunk, D width of the residual stream, H heads, P channels of a head,
N rows of a state (of B and C, which all heads share), X channels of x, B and C together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.mixers import Mixer, State, convolved, drawn_conv, drawn_linear, heads_of
from posexp.mixers.decays import CHUNK, Decay, decays_within


class Mamba2(Mixer):
    path = "state space dual in chunks"

    def __init__(self, dims: Dims, attention_every: int, heads: int | None, state: int | None):
        super().__init__(dims, attention_every)
        D, H = dims.d_model, heads_of(heads, dims, multiple=1)
        N = D // 2 if state is None else state
        if N < 1:
            raise Misuse(f"mixer.state={N} must be at least 1")
        self.heads, self.rows = H, N
        self.inputs = drawn_linear(D, D, D, N, N, H)  # gate; x, B, C; step sizes
        self.out = drawn_linear(D, D, branches=2 * dims.n_layer)
        self.conv = drawn_conv(D + 2 * N)
        self.conv_bias_X = nn.Parameter(torch.empty(D + 2 * N).uniform_(-0.5, 0.5))
        self.decay = Decay(H, 1, 16)
        self.skip_H = nn.Parameter(torch.ones(H))
        self.norm = nn.RMSNorm(D, eps=1e-5)

    def mix(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        D, H, N = self.dims.d_model, self.heads, self.rows
        before_BWX, state_BHNP = state or (None, None)
        gate_BTD, xbc_BTX, step_BTH = self.inputs(x_BTD).split((D, D + 2 * N, H), dim=-1)
        xbc_BTX, before_BWX = convolved(self.conv, xbc_BTX, before_BWX)
        exact = torch.promote_types(x_BTD.dtype, torch.float32)
        with torch.autocast(x_BTD.device.type, enabled=False):
            in_BTD, b_BTN, c_BTN = F.silu(xbc_BTX.to(exact) + self.conv_bias_X).split((D, N, N), dim=-1)
            in_BHTP = in_BTD.unflatten(-1, (H, -1)).transpose(1, 2)
            step_BHT, log_BHT = self.decay(step_BTH.to(exact))
            mixed_BHTP, state_BHNP = scan(in_BHTP * step_BHT[..., None], b_BTN, c_BTN, log_BHT, state_BHNP)
            mixed_BHTP = mixed_BHTP + self.skip_H[:, None, None] * in_BHTP
            mixed_BTD = self.norm(mixed_BHTP.transpose(1, 2).flatten(2) * F.silu(gate_BTD.to(exact)))
        return self.out(mixed_BTD.type_as(x_BTD)), (before_BWX, state_BHNP)

    def extra_repr(self) -> str:
        return f"{self.heads} states of {self.rows} x {self.dims.d_model // self.heads}"


def scan(
    x_BHTP: Tensor, b_BTN: Tensor, c_BTN: Tensor, log_BHT: Tensor, state_BHNP: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return [B, H, T, P] and the last state, for logarithms of decays."""
    if state_BHNP is None:
        state_BHNP = x_BHTP.new_zeros(*x_BHTP.shape[:2], b_BTN.shape[-1], x_BHTP.shape[-1])
    parts = (x.split(CHUNK, dim=2) for x in (x_BHTP, b_BTN[:, None], c_BTN[:, None], log_BHT))
    mixed = []
    for x_BHLP, b_B1LN, c_B1LN, log_BHL in zip(*parts, strict=True):
        begin_BHL1, between_BHLL, end_BHL1 = decays_within(log_BHL)
        mixed.append(begin_BHL1 * (c_B1LN @ state_BHNP) + (c_B1LN @ b_B1LN.mT * between_BHLL) @ x_BHLP)
        state_BHNP = begin_BHL1[:, :, -1:] * state_BHNP + b_B1LN.mT @ (end_BHL1 * x_BHLP)
    return torch.cat(mixed, dim=2), state_BHNP
