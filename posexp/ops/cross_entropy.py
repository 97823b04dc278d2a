"""Cross-entropy of a linear layer over a vocabulary, without storing the logits of all tokens.

Shape suffixes: N tokens, M tokens of a chunk, D width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits in memory at a time: on a CPU 16 MiB, which fit its cache; a GPU needs more to be fully used.
LOGITS = {"cpu": 2**22, "cuda": 2**28}


def rows_at_a_time(vocab_size: int, device: torch.device) -> int:
    """Return the number of tokens whose logits are in memory at a time."""
    return max(1, LOGITS.get(device.type, LOGITS["cpu"]) // vocab_size)


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """Return the mean cross-entropy of softmax(hidden weight^T), in nats, with logits in the dtype of `weight_VD`.

    torch.nn.functional has an equally fast function of this name from 2.13 on. Under autocast, PyTorch's function
    multiplies in float32, or rounds the loss of half-precision inputs. In a compiled model PyTorch's breaks the graph.
    """
    device = hidden_ND.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    with torch.autocast(device, enabled=False):
        return LinearCrossEntropy.apply(hidden_ND, weight_VD, target_N, kind)


class LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy that computes gradients together with the loss, chunk by chunk."""

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
