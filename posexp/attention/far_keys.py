"""Attention with other positions (`window.far`) for queries and keys that are far apart.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, C channels of a head.
"""

import torch
from torch import Tensor

from posexp.schemes import Scheme, bias_between, exact_type
from posexp.windows import Window


def attend(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, scheme: Scheme, pos_BT: Tensor, window: Window) -> Tensor:
    """Return [B, H, T, C]."""
    far, T, device, scale = window.far, q_BHTC.shape[2], q_BHTC.device, q_BHTC.shape[-1] ** -0.5
    assert far is not None
    kind = exact_type(q_BHTC)
    index_T = torch.arange(T, device=device)
    query_1T, key_1T = far.query(index_T)[None], far.key(index_T)[None]
    near_q, near_k = scheme.rotate(q_BHTC, k_BHTC, pos_BT)
    # One call for both, since the rotation may depend on all positions, as that of xPos on their centre.
    twice_q, twice_k = torch.cat((q_BHTC, q_BHTC), dim=2), torch.cat((k_BHTC, k_BHTC), dim=2)
    far_q, far_k = scheme.rotate(twice_q, twice_k, torch.cat((query_1T, key_1T), dim=1))
    far_q, far_k = far_q[:, :, :T], far_k[:, :, T:]
    out = []
    with torch.autocast(device.type, enabled=False):
        for rows, keys, visible_QK in window.blocks(T, device):
            near_QK = index_T[rows, None] - index_T[keys] <= far.reach
            near_BHQK = near_q[:, :, rows].to(kind) @ near_k[:, :, keys].to(kind).transpose(-1, -2) * scale
            far_BHQK = far_q[:, :, rows].to(kind) @ far_k[:, :, keys].to(kind).transpose(-1, -2) * scale
            bias_BHQK = bias_between(scheme, pos_BT[:, rows], pos_BT[:, keys])
            if bias_BHQK is not None:
                far_bias_BHQK = bias_between(scheme, query_1T[:, rows], key_1T[:, keys])
                assert far_bias_BHQK is not None
                near_BHQK, far_BHQK = near_BHQK + bias_BHQK, far_BHQK + far_bias_BHQK
            logits_BHQK = torch.where(near_QK, near_BHQK, far_BHQK).masked_fill(~visible_QK, -torch.inf)
            out.append(logits_BHQK.softmax(-1).to(v_BHTC.dtype) @ v_BHTC[:, :, keys])
    return torch.cat(out, dim=2)
