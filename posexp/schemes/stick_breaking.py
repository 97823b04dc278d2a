"""Stick-breaking attention. Tan et al. 2024, arXiv 2410.17980, section 2.

Formula: a(m, n) = sigmoid(z(m, n)) Π_t (1 - sigmoid(z(m, t))), for t = n + 1 .. m - 1 and n < m
    the output of query m is Σ_n a(m, n) v_n + (1 - Σ_n a(m, n)) v_m; z(m, n) = q_m·k_n / √C
Shape suffixes: B batch, T tokens, Q query tokens, K key tokens (nearest first), D width of the residual stream,
H heads, C channels of a head.
"""

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

    def mixture(self, block: Block) -> Tensor:
        earlier_QK = block.visible.tril(block.own.start - 1)  # without the query's own key
        own_v = block.v[:, :, block.own]
        block = block._replace(visible=earlier_QK).nearest_first()
        logits_BHQK = block.q * self.dims.head_dim**-0.5 @ block.k.mT
        rest_BHQK = block.hide(F.logsigmoid(-logits_BHQK), 0.0).cumsum(-1)  # log of the rest after each key
        # log sigmoid(z) = z + log sigmoid(-z), so the log weight of a key is z + the log of the rest after that key
        weight_BHQK = block.hide((logits_BHQK + rest_BHQK).clamp(min=MIN_LOG)).exp()
        mixed_BHQC = weight_BHQK @ block.v
        return mixed_BHQC + rest_BHQK[..., -1:].exp() * own_v if self.remainder else mixed_BHQC
