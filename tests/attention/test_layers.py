"""Layers of our own give what PyTorch's operations give, gradients included, and keep less for them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.memory import kept_for_gradients
from torch import Tensor, nn

from posexp.ops.layers import RMSNorm, swiglu


def plain_swiglu(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def norm(kind: type[nn.RMSNorm]) -> nn.RMSNorm:
    part = kind(12).double()
    with torch.no_grad():
        part.weight.copy_(torch.linspace(0.5, 2, 12))
    return part


CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "norm": (norm(RMSNorm), norm(nn.RMSNorm)),
    "swiglu": (swiglu, plain_swiglu),
}


@pytest.mark.parametrize("shape", [(2, 5, 12), (2, 3, 4, 12), (1, 12)])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_operations(name: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = []
    for layer in CASES[name]:
        leaves = [x, *(layer.parameters() if isinstance(layer, nn.Module) else [])]
        out = layer(x)
        slope = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape)
        found.append([out, *torch.autograd.grad((out * slope).sum(), leaves)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)  # the norm's epsilon is that of its type


@pytest.mark.parametrize("name", CASES)
def test_gradients_pass_a_numerical_check(name: str) -> None:
    x = torch.randn(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(CASES[name][0], (x,))


@pytest.mark.parametrize("name", CASES)
def test_less_is_kept(name: str) -> None:
    x = torch.randn(100, 12, dtype=torch.float64, requires_grad=True)
    kept = []
    for layer in CASES[name]:
        with kept_for_gradients() as total:
            layer(x)
        kept.append(total[0])
    assert kept[0] < 0.7 * kept[1]


def test_a_half_precision_input_is_normalised_as_pytorch_does() -> None:
    x = torch.randn(4, 12, dtype=torch.bfloat16)
    assert torch.equal(norm(RMSNorm).bfloat16()(x), norm(nn.RMSNorm).bfloat16()(x))
