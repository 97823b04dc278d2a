"""The loss by chunks is the loss, and so are its gradients; the logits of all tokens never live together.

Shape suffixes: N tokens, D width, V vocabulary.
"""

import pytest
import torch
import torch.nn.functional as F
from support.memory import Largest
from torch import Tensor

from posexp.ops import cross_entropy
from posexp.ops.cross_entropy import linear_cross_entropy

N, D, V = 50, 12, 37


def given(kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden_ND, weight_VD = torch.randn(N, D, generator=draw).to(kind), torch.randn(V, D, generator=draw).to(kind)
    return hidden_ND.requires_grad_(), weight_VD.requires_grad_(), torch.randint(V, (N,), generator=draw)


def with_gradients(value: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [value, *torch.autograd.grad(3 * value, leaves)]


@pytest.mark.parametrize("rows", [1, 7, 50, 1000])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_chunks_of_any_size_give_the_loss_and_its_gradients(
    monkeypatch: pytest.MonkeyPatch, rows: int, kind: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setitem(cross_entropy.LOGITS, "cpu", rows * V)
    hidden_ND, weight_VD, target_N = given(kind)
    got = with_gradients(linear_cross_entropy(hidden_ND, weight_VD, target_N), hidden_ND, weight_VD)
    wanted = with_gradients(F.cross_entropy(hidden_ND @ weight_VD.T, target_N), hidden_ND, weight_VD)
    for got_part, wanted_part in zip(got, wanted, strict=True):
        torch.testing.assert_close(got_part, wanted_part, rtol=0, atol=tolerance)


def test_autocast_multiplies_in_half_precision_and_sums_in_float32() -> None:
    hidden_ND, weight_VD, target_N = given()
    with torch.autocast("cpu", torch.bfloat16):
        got = with_gradients(linear_cross_entropy(hidden_ND, weight_VD, target_N), hidden_ND, weight_VD)
        logits_NV = F.linear(hidden_ND, weight_VD)
    wanted = with_gradients(F.cross_entropy(logits_NV.float(), target_N), hidden_ND, weight_VD)
    assert logits_NV.dtype == torch.bfloat16
    assert all(part.dtype == torch.float32 for part in got)
    assert got[0].item() == pytest.approx(wanted[0].item(), abs=1e-6)
    for got_part, wanted_part in zip(got[1:], wanted[1:], strict=True):
        torch.testing.assert_close(got_part, wanted_part, rtol=0, atol=0.02 * float(wanted_part.abs().max()))


def test_no_tensor_holds_the_logits_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cross_entropy.LOGITS, "cpu", 64 * V)
    hidden_ND, weight_VD, target_N = (
        torch.randn(2048, D, requires_grad=True),
        torch.randn(V, D),
        torch.zeros(2048).long(),
    )
    with Largest() as mode:
        linear_cross_entropy(hidden_ND, weight_VD, target_N).backward()
    assert mode.bytes == hidden_ND.nbytes < 2048 * V * 4


def test_without_gradients_none_are_computed() -> None:
    hidden_ND, weight_VD, target_N = (part.detach() for part in given())
    value = linear_cross_entropy(hidden_ND, weight_VD, target_N)
    assert not value.requires_grad
    assert value.item() == pytest.approx(F.cross_entropy(hidden_ND @ weight_VD.T, target_N).item(), abs=1e-6)
