"""Attention with a bias that depends on both positions, one block of queries at a time.

Shape suffixes: B batch, T tokens, Q query tokens of a block, K keys that it sees, H heads, C channels of a head.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from posexp.ops.sdpa import biased
from posexp.schemes import Scheme
from posexp.windows import Window


def attend(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, scheme: Scheme, pos_BT: Tensor, window: Window, scale: float
) -> Tensor | None:
    """Return [B, H, T, C], or None if the scheme adds no bias. The backward pass recomputes the bias of each block."""
    with torch.autocast(q_BHTC.device.type, enabled=False):
        if scheme.bias(pos_BT[:, :1], pos_BT[:, :1]) is None:
            return None
    index_T = torch.arange(q_BHTC.shape[2], device=q_BHTC.device)

    def block(q_BHQC: Tensor, k_BHKC: Tensor, v_BHKC: Tensor, rows: slice, keys: slice) -> Tensor:
        visible_QK = window.visible(index_T[rows], index_T[keys])
        with torch.autocast(q_BHQC.device.type, enabled=False):
            bias_BHQK = scheme.bias(pos_BT[:, rows], pos_BT[:, keys])
            assert bias_BHQK is not None
            bias_BHQK = bias_BHQK.float().masked_fill(~visible_QK, -torch.inf)
            return biased(q_BHQC, k_BHKC, v_BHKC, bias_BHQK, scale)

    out = []
    for rows, keys in window.spans(q_BHTC.shape[2]):
        parts = (q_BHTC[:, :, rows], k_BHTC[:, :, keys], v_BHTC[:, :, keys], rows, keys)
        if torch.is_grad_enabled():
            out.append(checkpoint(block, *parts, use_reentrant=False, preserve_rng_state=False))
        else:
            out.append(block(*parts))
    return torch.cat(out, dim=2)
