"""Context-aware rotary positions (CARoPE). Veisi et al. 2025, arXiv 2507.23083, section 2.

Formula: z(m, n) = (R_m q_m)·(R_n k_n) / √C
    R_m rotates pair i of channels by the angle Σ_t f_t^i, for t = 0 .. m and i = 1 .. C/2
    f_t = 1 / (1 + softplus(w_h·x_t + b_h)), for every head h
Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head, I pairs of channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.ops.sdpa import sdpa
from posexp.schemes import exact_type
from posexp.schemes.per_layer import Block, BlockwiseAttention, PerLayer
from posexp.schemes.rope import turn_pairs
from posexp.windows import Window


class ContentRotation(BlockwiseAttention):
    """Queries and keys rotated by angles that sum `steps` of the content from token to token, in one block."""

    relative = True
    exact = False  # the fused kernel takes half precision

    def __init__(self, dims: Dims):
        super().__init__(dims)
        if dims.head_dim % 2:
            raise Misuse(f"rotary positions need pairs of channels: a head has {dims.head_dim}")

    def steps(self, x_BTD: Tensor) -> Tensor:
        """Return the angle that each token adds, [B, T, H, I], in radians."""
        raise NotImplementedError

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor:
        with torch.autocast(q_BHTC.device.type, enabled=False):
            step_BTHI = self.steps(x_BTD.to(next(self.parameters()).dtype))
            # Float32 sums of many tokens are too coarse for an angle; whole turns are taken off before rounding.
            angle_BHTI = step_BTHI.transpose(1, 2).double().cumsum(2).remainder(2 * math.pi).to(exact_type(q_BHTC))
            cos_BHTI, sin_BHTI = angle_BHTI.cos(), angle_BHTI.sin()
            q_BHTC, k_BHTC = (turn_pairs(x_BHTC, cos_BHTI, sin_BHTI) for x_BHTC in (q_BHTC, k_BHTC))
        return super().attend(q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)

    def mixture(self, block: Block) -> Tensor:
        return sdpa(block.q, block.k, block.v, self.dims.head_dim**-0.5, attn_mask=block.visible)


class Frequencies(ContentRotation):
    """The frequency of the first pair that each token has in every head; the others are its powers."""

    def __init__(self, dims: Dims, base: float):
        super().__init__(dims)
        self.first = nn.Linear(dims.d_model, dims.n_head)
        nn.init.zeros_(self.first.weight)
        # 1 / (1 + softplus(b)) is base^(-2/C); expm1 of a large number overflows where softplus is the identity
        inverse = base ** (2 / dims.head_dim) - 1
        nn.init.constant_(self.first.bias, math.log(math.expm1(inverse)) if inverse < 30 else inverse)

    def steps(self, x_BTD: Tensor) -> Tensor:
        first_BTH1 = 1 / (1 + F.softplus(self.first(x_BTD)))[..., None]
        return first_BTH1 ** torch.arange(1, self.dims.head_dim // 2 + 1, device=x_BTD.device)


class Carope(PerLayer):
    """RoPE with frequencies computed from every token, for each head and block.

    It starts as RoPE with frequencies base^(-2i/C) for i = 1..C/2, as the paper asks. That needs a bias b, which its
    formula lacks: without one, every f would start at 0.59.
    """

    def __init__(self, dims: Dims, base: float):
        if not base > 1:
            raise Misuse(f"scheme.base={base} must be above 1")
        super().__init__(dims, lambda: Frequencies(dims, base))
        self.base = base
