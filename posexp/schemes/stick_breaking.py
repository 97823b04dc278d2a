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

MIN_LOG = -80.0  # exp(-80) is negligible beside 1; below, exp takes ten times as long


class StickBreaking(BlockwiseAttention):
    """Attention without softmax: from the previous token backwards, each key takes sigmoid(z) of the remaining weight.

    With `remainder` the weight that remains after the first token goes to the query's own value, as in the authors'
    language models (IBM/dolomite-engine, `sb_remainder`). Otherwise the remaining weight is dropped, as in
    flash-linear-attention, and the output at the first token is 0. The query's own key takes no weight in either case.
    """

    relative = True

    def __init__(self, dims: Dims, remainder: bool):
        super().__init__(dims)
        self.remainder = remainder

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        for block in blocks:
            earlier_QK = block.visible.tril(block.rows.start - block.keys.start - 1)  # without the query's own key
            yield self.mixture(block._replace(visible=earlier_QK).nearest_first())

    def mixture(self, block: Block) -> Tensor:
        logits_BHQK = block.q * self.dims.head_dim**-0.5 @ block.k.mT
        hidden_QK = ~block.visible
        rest_BHQK = F.logsigmoid(-logits_BHQK).masked_fill(hidden_QK, 0.0).cumsum(-1)  # log of the rest after each key
        # log sigmoid(z) = z + log sigmoid(-z), so the log weight of a key is z + the log of the rest after that key
        weight_BHQK = (logits_BHQK + rest_BHQK).clamp(min=MIN_LOG).masked_fill(hidden_QK, -torch.inf).exp()
        mixed_BHQC = weight_BHQK @ block.v
        return mixed_BHQC + rest_BHQK[..., -1:].exp() * block.own_v if self.remainder else mixed_BHQC

    def extra_repr(self) -> str:
        return f"remainder={self.remainder}"
