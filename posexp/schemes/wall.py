"""Wall attention. Averbuch and Pai 2026 (Tilde Research); fla-org/flash-linear-attention, ops/wall_attn/naive.py.

Formula: z(m, n) = Σ_c q_mc k_nc Π_t f_tc / √C, for t = n + 1 .. m
    f_t = sigmoid(W_h x_t + b_h), of C numbers, for every head h
Shape suffixes: B batch, T tokens, Q query tokens of a block, K key tokens, S tokens of a square, D width of the
residual stream, H heads, C channels of a head.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import INIT_STD, Dims
from posexp.schemes import exact_type
from posexp.schemes.per_layer import Block, BlockwiseAttention, PerLayer, recomputed

NEAR = 8  # tokens of a square whose factors are computed pair by pair


class ChannelGates(BlockwiseAttention):
    """The gates of one block: each token multiplies, channel by channel, what later queries see of earlier keys."""

    relative = True

    def __init__(self, dims: Dims, gate_bias: float):
        super().__init__(dims)
        self.gate = nn.Linear(dims.d_model, dims.d_model)
        nn.init.normal_(self.gate.weight, std=INIT_STD)
        nn.init.constant_(self.gate.bias, gate_bias)

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        log_kept_BTD = F.logsigmoid(self.gate(x_BTD.to(self.gate.weight.dtype)))
        sum_BHTC = log_kept_BTD.unflatten(2, (self.dims.n_head, -1)).transpose(1, 2).double().cumsum(2)
        for block in blocks:
            # Sums from the block's first query: those from the input's beginning are large, and differ by little.
            start_BH1C = sum_BHTC[:, :, block.rows.start, None]
            yield recomputed(self.step, block, (sum_BHTC[:, :, block.keys] - start_BH1C).to(exact_type(block.q)))

    def step(self, block: Block, sum_BHKC: Tensor) -> Tensor:
        q_BHQC, first = block.q * self.dims.head_dim**-0.5, block.own.start
        far_BHQK = decayed(q_BHQC, block.k[:, :, :first], sum_BHKC[:, :, first:], sum_BHKC[:, :, :first])
        near_BHQQ = square(q_BHQC, block.k[:, :, first:], sum_BHKC[:, :, first:])
        return block.hide(torch.cat((far_BHQK, near_BHQQ), dim=-1)).softmax(-1) @ block.v


def decayed(q_BHQC: Tensor, k_BHKC: Tensor, of_q_BHQC: Tensor, of_k_BHKC: Tensor) -> Tensor:
    """Return the logits, [B, H, Q, K], of queries that all come after the keys, given the sums of log gates.

    Sums fall from token to token. Taken from the first query on, one factor is exp(sum of the query - start), the other
    exp(start - sum of the key), and neither is above 1.
    """
    start_BH1C = of_q_BHQC[:, :, :1]
    return (q_BHQC * (of_q_BHQC - start_BH1C).exp()) @ (k_BHKC * (start_BH1C - of_k_BHKC).exp()).mT


def square(q_BHSC: Tensor, k_BHSC: Tensor, sum_BHSC: Tensor) -> Tensor:
    """Return the logits of the queries and keys of the same tokens, [B, H, S, S], by halves down to NEAR tokens."""
    S = q_BHSC.shape[2]
    if S <= NEAR:
        factor_BHSSC = (sum_BHSC[:, :, :, None] - sum_BHSC[:, :, None]).clamp(max=0).exp()
        return (factor_BHSSC * k_BHSC[:, :, None] @ q_BHSC[..., None])[..., 0]
    early, late = slice(None, S // 2), slice(S // 2, None)
    parts = [part[:, :, half] for half in (early, late) for part in (q_BHSC, k_BHSC, sum_BHSC)]
    early_q, early_k, early_sum, late_q, late_k, late_sum = parts
    above_BHSS = F.pad(square(early_q, early_k, early_sum), (0, S - S // 2))
    across_BHSS = decayed(late_q, early_k, late_sum, early_sum)
    below_BHSS = torch.cat((across_BHSS, square(late_q, late_k, late_sum)), dim=-1)
    return torch.cat((above_BHSS, below_BHSS), dim=2)


class Wall(PerLayer):
    """A forget gate for every channel, head and block, which decays the products of queries and keys, not the logit.

    Far keys thus tend to a logit of 0, not to a weight of 0. Weights start as the decoder's do, and biases at
    `gate_bias`: the authors' 8 keeps 0.9997 with every token. The gates have as many parameters as the projection of
    queries. The optional scalar gate of FoX is not implemented.
    """

    def __init__(self, dims: Dims, gate_bias: float):
        super().__init__(dims, lambda: ChannelGates(dims, gate_bias))
        self.gate_bias = gate_bias
