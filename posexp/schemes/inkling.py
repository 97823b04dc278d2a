"""Relative logits of Inkling. Thinking Machines 2026, no paper; huggingface/transformers, models/inkling.

Formula: z(m, n) = q_m·k_n / √C + r_m·b(m - n)
    r_m = W_h x_m, of R numbers, for every head h; b has R learned numbers for each distance, and 0 from extent on
Shape suffixes: B batch, T tokens, Q query tokens of a block, K keys that it sees, D width of the residual stream,
H heads, C channels of a head, R curves, E nearest distances.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import INIT_STD, Dims
from posexp.ops.sdpa import biased
from posexp.schemes.per_layer import Block, BlockwiseAttention, PerLayer
from posexp.windows import at_least


class RelativeLogits(BlockwiseAttention):
    """The curves of one block, shared by its heads: each query mixes curves over distance into a bias of its own."""

    relative = True
    linear_bias = True
    exact = False  # the fused kernel takes half precision

    def __init__(self, dims: Dims, curves: int, extent: int):
        super().__init__(dims)
        self.mix = nn.Linear(dims.d_model, dims.n_head * curves, bias=False)
        self.curve_RE = nn.Parameter(torch.randn(curves, extent) * INIT_STD)
        nn.init.normal_(self.mix.weight, std=INIT_STD)

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        mix_BTX = self.mix(x_BTD.to(self.mix.weight.dtype))
        mix_BHTR = mix_BTX.unflatten(2, (self.dims.n_head, -1)).transpose(1, 2)
        for block in blocks:
            bias_BHQK = block.hide(relative_logits(mix_BHTR[:, :, block.rows], self.curve_RE, block.k.shape[2]))
            yield biased(block.q, block.k, block.v, bias_BHQK, self.dims.head_dim**-0.5)


def relative_logits(mix_BHQR: Tensor, curve_RE: Tensor, K: int) -> Tensor:
    """Return [B, H, Q, K], the mixtures of curves at the distances of K keys from the last Q tokens; 0 from E on."""
    Q, E = mix_BHQR.shape[2], min(K, curve_RE.shape[1])
    bias_BHQE = mix_BHQR @ curve_RE[:, :E].flip(1)  # the nearest key last
    # Rows are stored with a width of E + Q and read with E + Q - 1, which shifts each row one more place to the
    # right, so that columns become keys.
    width = E + Q - 1
    skewed_BHQK = F.pad(bias_BHQE, (0, Q)).flatten(2)[..., : Q * width].unflatten(2, (Q, width))
    return F.pad(skewed_BHQK, (K - width, 0))  # 0 for far keys; a negative padding crops


class Inkling(PerLayer):
    """A bias by distance that depends on the query: a mixture of `curves` curves over the nearest `extent` distances.

    Keys further back have a bias of 0, as with no positions. The authors' extent is 1024 in layers that see the whole
    input, far below their contexts of more than 16,384 tokens, so that training has many keys without a bias. An
    `extent` of None is a quarter of the training length. Both matrices start as the decoder's do, as in transformers.
    The rest of Inkling's attention (logits divided by C, short convolutions, a temperature by position) is not part of
    the scheme.
    """

    def __init__(self, dims: Dims, curves: int, extent: int | None):
        at_least("scheme.curves", curves, 1)
        self.extent = max(1, dims.train_length // 4) if extent is None else at_least("scheme.extent", extent, 1)
        self.curves = curves
        super().__init__(dims, lambda: RelativeLogits(dims, curves, self.extent))

    def notes(self) -> list[str]:
        if self.extent < self.dims.train_length:
            return []
        return [
            f"Inkling's extent={self.extent} is not below the training length of {self.dims.train_length}: "
            "training has no key with a bias of 0, which every further key has"
        ]
