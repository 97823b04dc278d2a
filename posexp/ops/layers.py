"""Layers that store fewer activations for the gradient than PyTorch's separate operations, and are faster on a CPU.
A compiled model uses PyTorch's operations, which the compiler fuses.

Shape suffixes: B batch, T tokens, D width of what is normalised, F width of the MLP, G twice as much (gate, then up).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StackedLinear(nn.Linear):
    """Linear layers of one input, without biases, in one matrix. `rows` are the outputs of each."""

    def __init__(self, inputs: int, *rows: int):
        super().__init__(inputs, sum(rows), bias=False)
        self.rows = rows


class RMSNorm(nn.RMSNorm):
    """RMSNorm. Zhang and Sennrich 2019, arXiv 1910.07467, equation 4."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        exact = x_BTD.dtype == self.weight.dtype and x_BTD.dtype in (torch.float32, torch.float64)
        if not exact or x_BTD.is_cuda or torch.compiler.is_compiling():
            return super().forward(x_BTD)
        return Normalized.apply(x_BTD, self.weight)


class Normalized(torch.autograd.Function):
    """The function x / rms(x) * weight, which stores x (shared with the residual stream) and one number per token."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, weight_D: Tensor) -> Tensor:
        inverse_BT1 = torch.linalg.vector_norm(x_BTD, dim=-1, keepdim=True).square_().div_(x_BTD.shape[-1])
        inverse_BT1 = inverse_BT1.add_(torch.finfo(x_BTD.dtype).eps).rsqrt_()  # the epsilon of nn.RMSNorm
        ctx.save_for_backward(x_BTD, weight_D, inverse_BT1)
        return (x_BTD * inverse_BT1).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BTD, weight_D, inverse_BT1 = ctx.saved_tensors
        normal_BTD = x_BTD * inverse_BT1
        dweight_D = (gradients[0] * normal_BTD).flatten(0, -2).sum(0)
        dnormal_BTD = gradients[0] * weight_D
        along_BT1 = (dnormal_BTD * normal_BTD).mean(-1, keepdim=True)  # along x, which does not affect the output
        return dnormal_BTD.addcmul_(normal_BTD, along_BT1, value=-1).mul_(inverse_BT1), dweight_D


def swiglu(gate_and_up_BTG: Tensor) -> Tensor:
    """Return silu(gate) * up, [B, T, F]. Shazeer 2020, arXiv 2002.05202, equation 6."""
    if torch.compiler.is_compiling():
        gate_BTF, up_BTF = gate_and_up_BTG.chunk(2, dim=-1)
        return F.silu(gate_BTF) * up_BTF
    return Gated.apply(gate_and_up_BTG)


class Gated(torch.autograd.Function):
    """The function silu(gate) * up, which recomputes silu for the gradient."""

    @staticmethod
    def forward(ctx: Any, gate_and_up_BTG: Tensor) -> Tensor:
        ctx.save_for_backward(gate_and_up_BTG)
        gate_BTF, up_BTF = gate_and_up_BTG.chunk(2, dim=-1)
        return F.silu(gate_BTF).mul_(up_BTF)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gate_and_up_BTG,) = ctx.saved_tensors
        gate_BTF, up_BTF = gate_and_up_BTG.chunk(2, dim=-1)
        out_BTG = torch.empty_like(gate_and_up_BTG)
        dgate_BTF, dup_BTF = out_BTG.chunk(2, dim=-1)
        torch.ops.aten.silu_backward.grad_input(gradients[0] * up_BTF, gate_BTF, grad_input=dgate_BTF)
        torch.mul(F.silu(gate_BTF), gradients[0], out=dup_BTF)
        return out_BTG
