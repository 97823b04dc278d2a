"""PyTorch's fused attention, with inputs in the form that the kernels need.

Shape suffixes: B batch, Q query tokens, K key tokens, H heads, C channels of a head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def biased(q_BHQC: Tensor, k_BHKC: Tensor, v_BHKC: Tensor, bias_BHQK: Tensor, scale: float) -> Tensor:
    """Return softmax attention with a float32 bias, since far distances would be equal if autocast rounded the bias."""
    kind = q_BHQC.dtype
    with torch.autocast(q_BHQC.device.type, enabled=False):
        if q_BHQC.is_cuda:  # CUDA kernels need a contiguous bias in the dtype of the queries
            q_BHQC, k_BHKC, v_BHKC = q_BHQC.float(), k_BHKC.float(), v_BHKC.float()
            bias_BHQK = bias_BHQK.contiguous()
        elif kind not in HALF:
            bias_BHQK = bias_BHQK.to(kind)
        return sdpa(q_BHQC, k_BHKC, v_BHKC, scale, attn_mask=bias_BHQK).to(kind)


def sdpa(q_BHQC: Tensor, k_BHKC: Tensor, v_BHKC: Tensor, scale: float, **mask: Any) -> Tensor:
    """Return PyTorch's attention. Values are padded, since the kernel writes [Q, K] matrices for unequal widths."""
    C = v_BHKC.shape[-1]
    v_BHKC = as_wide(v_BHKC, q_BHQC.shape[-1])
    return F.scaled_dot_product_attention(q_BHQC, k_BHKC, v_BHKC, scale=scale, **mask)[..., :C]


def as_wide(v_BHKC: Tensor, width: int) -> Tensor:
    """Return values padded with zeros to the width of queries."""
    return F.pad(v_BHKC, (0, width - v_BHKC.shape[-1])) if width > v_BHKC.shape[-1] else v_BHKC
