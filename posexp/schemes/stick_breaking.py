"""Stick-breaking attention. Tan et al. 2024, arXiv 2410.17980, section 2.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens (nearest first), D width of the residual stream,
H heads, C channels of a head.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes.per_layer import Block, BlockwiseAttention

LEAST = -80.0  # of a logarithm: its exponential is nothing beside 1, and further down exp takes ten times as long


class StickBreaking(BlockwiseAttention):
    """From the token before it backwards, a query gives each key the share sigmoid(z) of what is left; no softmax.

    `remainder`: what is left after the last key goes to the query's own value, as in the authors' language models
    (IBM/dolomite-engine, `sb_remainder`); without it it is dropped, as in flash-linear-attention, and the first
    token gets nothing. The query's own key takes no share in either.
    """

    relative = True

    def __init__(self, dims: Dims, remainder: bool):
        super().__init__(dims)
        self.remainder = remainder

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        for block in blocks:
            earlier_QK = block.visible.tril(block.rows.start - block.keys.start - 1)  # without a query's own key
            yield self.mixture(block._replace(visible=earlier_QK).nearest_first())

    def mixture(self, block: Block) -> Tensor:
        logits_BHQK = block.q * self.dims.head_dim**-0.5 @ block.k.mT
        hidden_QK = ~block.visible
        left_BHQK = F.logsigmoid(-logits_BHQK).masked_fill(hidden_QK, 0.0).cumsum(-1)  # log, after each key
        # log sigmoid(z) = z + log sigmoid(-z), so the share of what is left before is z + what is left after
        weight_BHQK = (logits_BHQK + left_BHQK).clamp(min=LEAST).masked_fill(hidden_QK, -torch.inf).exp()
        mixed_BHQC = weight_BHQK @ block.v
        return mixed_BHQC + left_BHQK[..., -1:].exp() * block.own_v if self.remainder else mixed_BHQC

    def extra_repr(self) -> str:
        return f"remainder={self.remainder}"
