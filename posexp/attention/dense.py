"""Attention with full [T, T] matrices, the reference for the other paths.

Shape suffixes: B batch, T tokens, H heads, C channels of a head.
"""

import torch
from torch import Tensor

from posexp.schemes import Scheme, exact_type
from posexp.windows import Window


def attend(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, scheme: Scheme, pos_BT: Tensor, window: Window, scale: float
) -> Tensor:
    """Return [B, H, T, C]. Logits are float32 or wider."""
    kind = exact_type(q_BHTC)
    index_T = torch.arange(q_BHTC.shape[2], device=q_BHTC.device)
    with torch.autocast(q_BHTC.device.type, enabled=False):
        logits_BHTT = q_BHTC.to(kind) @ k_BHTC.to(kind).mT * scale
        bias_HN = scheme.distance_bias(index_T)
        if bias_HN is not None:  # of distances in tokens, not positions
            logits_BHTT = logits_BHTT + bias_HN[:, (index_T[:, None] - index_T).clamp(min=0)]
        elif (bias_BHTT := scheme.bias(pos_BT, pos_BT)) is not None:
            logits_BHTT = logits_BHTT + bias_BHTT
        weight_BHTT = logits_BHTT.masked_fill(~window.visible(index_T, index_T), -torch.inf).softmax(-1)
        return (weight_BHTT @ v_BHTC.to(kind)).type_as(v_BHTC)
