"""Gated DeltaNet: a state that forgets, and that replaces what it stores under a key.

Formula: S_t = a_t (I - b_t k_t k_t^T) S_(t-1) + b_t k_t v_t^T, o_t = S_t^T q_t / sqrt(K), with unit-length q and k.
Yang, Kautz and Hatamizadeh 2024, arXiv 2412.06464, equation 10; layer as in flash-linear-attention.
Shape suffixes: B batch, T tokens, L tokens of a chunk, D width of the residual stream, H heads, K channels of a key,
V of a value, X channels of queries, keys and values together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.mixers import Mixer, State, convolved, drawn_conv, drawn_linear, heads_of
from posexp.mixers.decays import CHUNK, Decay, decays_within


class GatedDeltaNet(Mixer):
    path = "gated delta rule in chunks"

    def __init__(self, dims: Dims, attention_every: int, heads: int | None):
        super().__init__(dims, attention_every)
        D, H = dims.d_model, heads_of(heads, dims, multiple=2)
        self.heads, self.key, self.value = H, D // (2 * H), D // H
        self.inputs = drawn_linear(D, D // 2, D // 2, D, D, H, H)  # queries, keys, values; gate; decay; write strength
        self.out = drawn_linear(D, D, branches=2 * dims.n_layer)
        self.conv = drawn_conv(2 * D)
        self.decay = Decay(H, 0, 16)
        self.norm = nn.RMSNorm(self.value, eps=1e-5)

    def mix(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        D, H = self.dims.d_model, self.heads
        before_BWX, state_BHKV = state or (None, None)
        qkv_BTX, gate_BTD, decay_BTH, strength_BTH = self.inputs(x_BTD).split((2 * D, D, H, H), dim=-1)
        qkv_BTX, before_BWX = convolved(self.conv, qkv_BTX, before_BWX)
        exact = torch.promote_types(x_BTD.dtype, torch.float32)
        with torch.autocast(x_BTD.device.type, enabled=False):
            q_BHTK, k_BHTK, v_BHTV = (
                part_BTX.unflatten(-1, (H, -1)).transpose(1, 2)
                for part_BTX in F.silu(qkv_BTX.to(exact)).split((D // 2, D // 2, D), dim=-1)
            )
            _, log_BHT = self.decay(decay_BTH.to(exact))
            strength_BHT = strength_BTH.to(exact).sigmoid().transpose(1, 2)
            mixed_BHTV, state_BHKV = gated_delta_rule(
                unit(q_BHTK), unit(k_BHTK), v_BHTV, log_BHT, strength_BHT, state_BHKV
            )
            mixed_BTHV = self.norm(mixed_BHTV.transpose(1, 2)) * F.silu(gate_BTD.to(exact)).unflatten(-1, (H, -1))
        return self.out(mixed_BTHV.flatten(2).type_as(x_BTD)), (before_BWX, state_BHKV)

    def extra_repr(self) -> str:
        return f"{self.heads} states of {self.key} x {self.value}"


def unit(x_BHTK: Tensor) -> Tensor:
    return x_BHTK * (x_BHTK.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def gated_delta_rule(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTV: Tensor,
    log_BHT: Tensor,
    strength_BHT: Tensor,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return [B, H, T, V] and the last state, for logarithms of decays and strengths of writing.

    The values u that a chunk writes solve one triangular system: u_i = b_i (v_i - decayed k_i^T S - those of earlier
    u_j that k_i finds). Section 3.3 of the paper.
    """
    if state_BHKV is None:
        state_BHKV = v_BHTV.new_zeros(*k_BHTK.shape[:2], k_BHTK.shape[-1], v_BHTV.shape[-1])
    q_BHTK = q_BHTK * q_BHTK.shape[-1] ** -0.5
    parts = (x.split(CHUNK, dim=2) for x in (q_BHTK, k_BHTK, v_BHTV, log_BHT, strength_BHT[..., None]))
    mixed = []
    for q_BHLK, k_BHLK, v_BHLV, log_BHL, strength_BHL1 in zip(*parts, strict=True):
        begin_BHL1, between_BHLL, end_BHL1 = decays_within(log_BHL)
        found_BHLL = strength_BHL1 * (k_BHLK @ k_BHLK.mT) * between_BHLL
        new_BHLV = strength_BHL1 * (v_BHLV - begin_BHL1 * (k_BHLK @ state_BHKV))
        # The diagonal is taken as ones, and what is above as zeros.
        new_BHLV = torch.linalg.solve_triangular(found_BHLL, new_BHLV, upper=False, unitriangular=True)
        mixed.append(begin_BHL1 * (q_BHLK @ state_BHKV) + (q_BHLK @ k_BHLK.mT * between_BHLL) @ new_BHLV)
        state_BHKV = begin_BHL1[:, :, -1:] * state_BHKV + (end_BHL1 * k_BHLK).mT @ new_BHLV
    return torch.cat(mixed, dim=2), state_BHKV
