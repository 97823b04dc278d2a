"""Attention equals the softmax written out in float64, in memory linear in the length of the input.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, C channels of a head, D width of the
residual stream, N distances.
"""

import subprocess
import sys

import pytest
import torch
from support.attention import DIMS, PerDistance, PerPosition, inputs
from torch import Tensor

from posexp.attention import attention, kernel_path
from posexp.dims import Dims
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.alibi import Alibi


def dense(scheme: Scheme, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor) -> Tensor:
    """softmax(q k / sqrt(C) + bias) v, every matrix in full, float64."""
    T, C = q_BHTC.shape[2:]
    index_T = torch.arange(T, device=q_BHTC.device)
    gap_TT = index_T[:, None] - index_T
    logits_BHTT = q_BHTC.double() @ k_BHTC.double().transpose(-1, -2) / C**0.5
    by_distance = scheme.distance_bias(gap_TT.clamp(min=0).flatten())
    by_position = scheme.bias(pos_BT, pos_BT)
    if by_distance is not None:
        logits_BHTT = logits_BHTT + by_distance.double().view(-1, T, T)
    elif by_position is not None:
        logits_BHTT = logits_BHTT + by_position.double()
    return logits_BHTT.masked_fill(gap_TT < 0, -torch.inf).softmax(-1) @ v_BHTC.double()


def output_and_gradients(out_BHTC: Tensor, slope_BHTC: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return [out_BHTC, *torch.autograd.grad((out_BHTC * slope_BHTC).sum(), leaves)]


def check_against_dense(kind: type[Scheme], T: int, device: str = "cpu") -> None:
    scheme = kind(DIMS).to(device)
    qkv, pos_BT, x_BTD, slope_BHTC = inputs(T, device)
    leaves = [*qkv, *scheme.parameters()]
    got = output_and_gradients(attention(scheme, *qkv, pos_BT, x_BTD), slope_BHTC, leaves)
    wanted = output_and_gradients(dense(scheme, *qkv, pos_BT), slope_BHTC.double(), leaves)
    for got_part, wanted_part in zip(got, wanted, strict=True):
        scale = float(wanted_part.detach().abs().max()) + 1
        torch.testing.assert_close(got_part.double(), wanted_part.double(), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("T", [1, 5, 255, 256, 257, 700])
@pytest.mark.parametrize("kind", [PerDistance, PerPosition, Alibi, Scheme])
def test_attention_and_its_gradients_equal_the_dense_reference(kind: type[Scheme], T: int) -> None:
    check_against_dense(kind, T)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [PerDistance, PerPosition, Alibi, Scheme])
def test_attention_equals_the_dense_reference_on_a_gpu(kind: type[Scheme]) -> None:
    check_against_dense(kind, 257, "cuda")


@pytest.mark.parametrize("kind", [PerDistance, PerPosition, Alibi, Scheme])
def test_a_double_model_is_computed_in_double(kind: type[Scheme]) -> None:
    qkv, pos_BT, x_BTD, _ = inputs(300)
    scheme = kind(DIMS)
    out_BHTC = attention(scheme, *(part.double() for part in qkv), pos_BT, x_BTD)
    torch.testing.assert_close(out_BHTC, dense(scheme, *qkv, pos_BT), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [PerDistance, PerPosition, Alibi, Scheme])
def test_half_precision_activations_stay_so(kind: type[Scheme]) -> None:
    qkv, pos_BT, x_BTD, slope_BHTC = inputs(300)
    scheme = kind(DIMS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out_BHTC = attention(scheme, *(part.bfloat16() for part in qkv), pos_BT, x_BTD)
    assert out_BHTC.dtype == torch.bfloat16
    out_BHTC.backward(slope_BHTC.bfloat16())
    wanted_BHTC = dense(scheme, *(part.bfloat16() for part in qkv), pos_BT)
    torch.testing.assert_close(out_BHTC.double(), wanted_BHTC, rtol=0.02, atol=0.02)
    for weight in [*qkv, *scheme.parameters()]:
        assert weight.grad is not None and weight.grad.dtype == torch.float32 and bool(weight.grad.isfinite().all())


@pytest.mark.parametrize("nearest", [0, 8000])
def test_half_precision_does_not_round_the_bias(nearest: int) -> None:
    """In bfloat16 nearest keys (key positions rounded) and far ones (distances rounded) would be off by tenths."""
    T, C = 8192, 64
    slope = 1 / 256
    scheme = Alibi(Dims(d_model=C, n_head=1, n_layer=1, train_length=64))
    zeros_BHTC, v_BHTC = torch.zeros(2, 1, 1, T, C, dtype=torch.bfloat16)
    gap_C = nearest + torch.arange(C)
    v_BHTC[0, 0, T - 1 - gap_C, torch.arange(C)] = 1.0  # the last query's output is its weights of these keys
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out_BHTC = attention(scheme, zeros_BHTC, zeros_BHTC, v_BHTC, torch.arange(T)[None], torch.zeros(1, T, C))
    weight_T = torch.softmax(-slope * torch.arange(T, dtype=torch.float64), dim=0)
    torch.testing.assert_close(out_BHTC[0, 0, -1].double(), weight_T[gap_C], rtol=0.01, atol=0)


PEAK = """
import sys
import torch
from posexp.attention import attention
from posexp.evaluation.scoring import peak_memory
from posexp.schemes import Dims, build_scheme

torch.set_num_threads(1)
scheme = build_scheme(sys.argv[1], Dims(d_model=128, n_head=4, n_layer=1, train_length=512))
for T in (8, 4096, 16384):
    q = torch.ones(1, 4, T, 32)
    with torch.no_grad():
        attention(scheme, q, q, q, torch.arange(T)[None], q.new_zeros(1, T, 128))
    print(peak_memory(torch.device("cpu")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="tells no peak memory")
@pytest.mark.parametrize("scheme", ["alibi", "pope"])
def test_memory_grows_with_the_length_and_not_with_its_square(scheme: str) -> None:
    """A [4, T, T] float32 mask alone would take 256 MiB at 4096 and 4 GiB at 16384."""
    done = subprocess.run([sys.executable, "-c", PEAK, scheme], capture_output=True, text=True, check=True)
    start, short, long = (int(line) / 2**20 for line in done.stdout.split())
    assert short - start < 48
    assert long - start < 160


@pytest.mark.parametrize(
    ("scheme", "path"),
    [
        (PerDistance(DIMS), "sdpa distance view"),
        (PerPosition(DIMS), "sdpa bias blocks"),
        (Scheme(DIMS), "sdpa causal"),
        *((build_scheme(name, DIMS), "sdpa causal") for name in ("none", "sinusoidal", "learned", "rope", "xpos")),
        (build_scheme("alibi", DIMS), "sdpa distance view"),
    ],
)
def test_a_row_can_tell_which_path_ran(scheme: Scheme, path: str) -> None:
    assert kernel_path(scheme, DIMS) == path


class EverySecond(Scheme):
    """A bias in even blocks, none in odd ones."""

    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.biased, self.plain = Alibi(dims), Scheme(dims)

    def layer(self, index: int) -> Scheme:
        return self.plain if index % 2 else self.biased


def test_a_row_tells_of_blocks_that_take_different_paths() -> None:
    assert kernel_path(EverySecond(DIMS), DIMS) == "sdpa distance view, sdpa causal"
