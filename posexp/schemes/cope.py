"""Contextual positions (CoPE). Golovneva et al. 2024, arXiv 2405.18719, section 4 and the listing in its appendix.

Formula: z(m, n) = q_m·k_n / √C + q_m·e[p(m, n)]
    p(m, n) = Σ_t sigmoid(q_m·k_t / √C), for t = n .. m, at most max_pos - 1
    e is a trained table, interpolated between whole numbers
Shape suffixes: B batch, T tokens, Q query tokens, K key tokens (nearest first), D width of the residual stream,
H heads, C channels of a head, P entries of the table, N nearest keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes.per_layer import Block, BlockwiseAttention, PerLayer
from posexp.windows import at_least

NEAR = 256  # nearest keys whose gates are summed at first; there most sums are past the end of the table


class PositionTable(BlockwiseAttention):
    """The position vectors of one block, shared by its heads.

    Logits are z_ij = q_i.k_j / sqrt(C). The position p_ij is the sum of the gates sigmoid(z) from query i back to key
    j. The logit becomes z_ij + q_i.e[p_ij]; the second term is not divided by sqrt(C), as in the listing. Between whole
    positions e is interpolated linearly.
    """

    relative = True

    def __init__(self, dims: Dims, max_pos: int):
        super().__init__(dims)
        self.table_PC = nn.Parameter(torch.zeros(max_pos, dims.head_dim))

    def mixture(self, block: Block) -> Tensor:
        block = block.nearest_first()
        # Softmax ignores what is common to all keys of a query, so the last entry is subtracted: far keys then add 0.
        table_CP = (self.table_PC - self.table_PC[-1]).to(block.q.dtype).T
        rise_CP = F.pad(table_CP.diff(dim=1), (0, 1))  # from each entry to the next, 0 at the end
        logits_BHQK = block.hide(block.q * self.dims.head_dim**-0.5 @ block.k.mT)  # -inf is a gate of 0
        p_BHQN = self.near_positions(logits_BHQK)
        whole_BHQN = p_BHQN.long()
        entry_BHQN = (block.q @ table_CP).gather(-1, whole_BHQN)
        rise_BHQN = (block.q @ rise_CP).gather(-1, whole_BHQN)
        logits_BHQK[..., : p_BHQN.shape[-1]] += entry_BHQN.addcmul_(p_BHQN.frac(), rise_BHQN)
        return logits_BHQK.softmax(-1) @ block.v

    def near_positions(self, logits_BHQK: Tensor) -> Tensor:
        """Return the positions of the nearest keys, [B, H, Q, N]. All other keys have the last position."""
        K, last = logits_BHQK.shape[-1], len(self.table_PC) - 1
        near = K if logits_BHQK.is_cuda or torch.compiler.is_compiling() else NEAR
        while True:
            p_BHQN = logits_BHQK[..., :near].sigmoid().cumsum(-1)
            if near >= K or bool((p_BHQN[..., -1] >= last).all()):
                return p_BHQN.clamp_(max=last)
            near *= 2


class Cope(PerLayer):
    """Positions that sum gates of the query instead of counting tokens. Positions end at `max_pos` - 1."""

    def __init__(self, dims: Dims, max_pos: int):
        at_least("scheme.max_pos", max_pos, 2)
        super().__init__(dims, lambda: PositionTable(dims, max_pos))
        self.max_pos = max_pos
