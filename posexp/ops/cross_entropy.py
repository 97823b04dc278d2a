"""Cross-entropy of a linear layer over a vocabulary, without the logits of all tokens at a time.

Shape suffixes: N tokens, M tokens of a chunk, D width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits that are alive at a time. On a CPU 16 MiB of them, which stay in its cache; a GPU needs more to be busy.
LOGITS = {"cpu": 2**22, "cuda": 2**28}


def rows_at_a_time(vocab_size: int, device: torch.device) -> int:
    """Tokens whose logits may be alive together."""
    return max(1, LOGITS.get(device.type, LOGITS["cpu"]) // vocab_size)


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """Mean cross-entropy of softmax(hidden weight^T), in nats; logits float32, or float64 if the inputs are.

    (torch.nn.functional has one of this name from 2.13 on, equally fast. Under autocast that one multiplies in float32
    or, handed half precision, rounds the loss itself; and a compiled model leaves its graph for it.)
    """
    device = hidden_ND.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    with torch.autocast(device, enabled=False):
        return LinearCrossEntropy.apply(hidden_ND, weight_VD, target_N, kind)


class LinearCrossEntropy(torch.autograd.Function):
    """Computes gradients chunk by chunk along with the loss, when the logits are at hand."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, kind: torch.dtype) -> Tensor:
        total = hidden_ND.new_zeros((), dtype=weight_VD.dtype)
        wanted = any(ctx.needs_input_grad)
        dhidden_ND = torch.empty_like(hidden_ND) if wanted else None
        dweight_VD = torch.zeros_like(weight_VD) if wanted else None
        size = rows_at_a_time(len(weight_VD), hidden_ND.device)
        typed_VD = weight_VD.to(kind)
        for first in range(0, len(hidden_ND), size):
            hidden_MD, target_M1 = hidden_ND[first : first + size].to(kind), target_N[first : first + size, None]
            log_p_MV = F.linear(hidden_MD, typed_VD).to(weight_VD.dtype).log_softmax(-1)
            total -= log_p_MV.gather(1, target_M1).sum()
            if dhidden_ND is not None and dweight_VD is not None:
                p_MV = log_p_MV.exp_()
                p_MV.scatter_add_(1, target_M1, torch.full_like(target_M1, -1, dtype=p_MV.dtype))
                p_MV = p_MV.to(kind)
                dhidden_ND[first : first + size] = p_MV @ typed_VD
                if kind == weight_VD.dtype:
                    dweight_VD.addmm_(p_MV.T, hidden_MD)
                else:
                    dweight_VD += p_MV.T @ hidden_MD
        if dhidden_ND is not None and dweight_VD is not None:
            ctx.save_for_backward(dhidden_ND, dweight_VD)
        ctx.count = len(hidden_ND)
        return total / len(hidden_ND)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dhidden_ND, dweight_VD = ctx.saved_tensors
        share = gradients[0] / ctx.count
        return dhidden_ND * share.to(dhidden_ND.dtype), dweight_VD * share, None, None
