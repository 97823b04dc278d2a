"""PyTorch's fused attention, and what it needs to be handed.

Shape suffixes: B batch, Q query tokens, K key tokens, H heads, C channels of a head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def biased(q_BHQC: Tensor, k_BHKC: Tensor, v_BHKC: Tensor, bias_BHQK: Tensor, scale: float) -> Tensor:
    """Softmax attention with a float32 bias, which autocast must not round: far distances would become equal."""
    kind = q_BHQC.dtype
    with torch.autocast(q_BHQC.device.type, enabled=False):
        if q_BHQC.is_cuda:  # its kernels take a bias only in the queries' own type, and laid out in full
            q_BHQC, k_BHKC, v_BHKC = q_BHQC.float(), k_BHKC.float(), v_BHKC.float()
            bias_BHQK = bias_BHQK.contiguous()
        elif kind not in HALF:
            bias_BHQK = bias_BHQK.to(kind)
        return sdpa(q_BHQC, k_BHKC, v_BHKC, scale, attn_mask=bias_BHQK).to(kind)


def sdpa(q_BHQC: Tensor, k_BHKC: Tensor, v_BHKC: Tensor, scale: float, **mask: Any) -> Tensor:
    """PyTorch's kernel, which falls back to writing [Q, K] matrices unless values are as wide as queries."""
    C = v_BHKC.shape[-1]
    v_BHKC = as_wide(v_BHKC, q_BHQC.shape[-1])
    return F.scaled_dot_product_attention(q_BHQC, k_BHKC, v_BHKC, scale=scale, **mask)[..., :C]


def as_wide(v_BHKC: Tensor, width: int) -> Tensor:
    """Values with zeros added up to the queries' width."""
    return F.pad(v_BHKC, (0, width - v_BHKC.shape[-1])) if width > v_BHKC.shape[-1] else v_BHKC
