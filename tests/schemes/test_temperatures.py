"""Temperatures around schemes, against formulas of whole matrices in float64, and the contract of schemes.

Shape suffixes: B batch, T tokens, H heads, C channels of a head, D width of the residual stream.
"""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support import contract
from torch import Tensor

from posexp import windows
from posexp.attention import attention, kernel_path
from posexp.config.commands import NO_TEMPERATURE
from posexp.config.components import options_of
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.fox import ForgetGate
from posexp.schemes.inkling import RelativeLogits
from posexp.schemes.rope import Rope
from posexp.temperatures import SSMax, Temperature, build_temperature
from posexp.transforms import NotApplicable, build_transform

DIMS = Dims(d_model=16, n_head=2, n_layer=2, train_length=8)
FLOOR = 4  # tokens
# The factor of the n-th query in head h, and how it is asked for.
FORMULAS: dict[str, tuple[dict, Callable[[int, int], float]]] = {
    "none": ({}, lambda n, h: 1.0),
    "llama4": ({"floor": 0.5, "everywhere": True}, lambda n, h: 1 + 0.1 * math.log(1 + n // FLOOR)),
    "ministral": ({"floor": 0.5}, lambda n, h: 1 + 0.1 * math.log(1 + (n - 1) // FLOOR)),
    "inkling": ({"floor": 0.5}, lambda n, h: 1 + 0.1 * max(0.0, math.log(n / FLOOR))),
    "ssmax": ({}, lambda n, h: (0.5 + h) * math.log(n)),
    "logn": ({"floor": 0.5}, lambda n, h: max(1.0, math.log(n) / math.log(FLOOR))),
}
SCHEMES = ["none", "rope", "alibi", "t5", "fire", "fox", "inkling"]


def around(name: str, scheme: Scheme) -> Temperature:
    found = build_temperature(name, scheme, **FORMULAS[name][0])
    assert isinstance(found, Temperature)
    if isinstance(found, SSMax):
        with torch.no_grad():
            found.s_LH.copy_(torch.tensor([[0.5, 1.5], [0.5, 1.5]]))
    return found


def bias_of(part: Scheme, x_BTD: Tensor) -> Tensor:
    """The bias of every pair, [B or 1, H, T, T]."""
    T = x_BTD.shape[1]
    index_T = torch.arange(T)
    gap_TT = (index_T[:, None] - index_T).clamp(min=0)
    if isinstance(part, ForgetGate):
        sum_BHT = part.log_kept(x_BTD).mT.cumsum(-1)
        return sum_BHT[..., None] - sum_BHT[:, :, None]
    if isinstance(part, RelativeLogits):
        mix_BTHR = part.mix(x_BTD).unflatten(2, (DIMS.n_head, -1))
        curve_RT = F.pad(part.curve_RE, (0, T))[:, :T]
        return torch.einsum("bthr,rtk->bhtk", mix_BTHR, curve_RT[:, gap_TT])
    bias_HTT = part.distance_bias(gap_TT.flatten())
    if bias_HTT is not None:
        return bias_HTT.unflatten(1, (T, T))[None].double()
    bias_BHTT = part.bias(index_T[None], index_T[None])
    return torch.zeros(1, 1, T, T).double() if bias_BHTT is None else bias_BHTT.double()


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("scheme_name", SCHEMES)
@pytest.mark.parametrize("size", [None, 6])
def test_a_temperature_equals_the_formula_forwards_and_backwards(name: str, scheme_name: str, size: int | None) -> None:
    """The whole logit times the factor for a bias under inkling, the product of query and key alone elsewhere."""
    torch.manual_seed(0)
    T, formula = 21, FORMULAS[name][1]
    scheme = build_scheme(scheme_name, DIMS).double()
    window = windows.from_config(None, DIMS) if size is None else windows.build_window("sliding", DIMS, size=size)
    q_BHTC, k_BHTC, v_BHTC = torch.randn(3, 2, 2, T, 8).double().requires_grad_()
    x_BTD, slope_BHTC, pos_BT = torch.randn(2, T, 16).double(), torch.randn(2, 2, T, 8).double(), torch.arange(T)[None]
    factor_HT1 = torch.tensor([[[formula(n, h)] for n in range(1, T + 1)] for h in range(2)]).double()

    part = scheme.layer(1)
    bias_BHTT = bias_of(part, x_BTD)
    if name == "inkling" and scheme_name != "fox":
        bias_BHTT = bias_BHTT * factor_HT1
    turned_q, turned_k = part.rotate(q_BHTC, k_BHTC, pos_BT)
    logits_BHTT = factor_HT1 * (turned_q @ turned_k.mT) / 8**0.5 + bias_BHTT
    hidden_TT = ~window.visible(torch.arange(T), torch.arange(T))
    wanted_BHTC = logits_BHTT.masked_fill(hidden_TT, -torch.inf).softmax(-1) @ v_BHTC
    leaves = [q_BHTC, k_BHTC, v_BHTC, *part.parameters()]
    wanted = torch.autograd.grad((wanted_BHTC * slope_BHTC).sum(), leaves, allow_unused=True)

    found = around(name, scheme).double().layer(1)
    got_BHTC = attention(found, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)
    torch.testing.assert_close(got_BHTC, wanted_BHTC, rtol=0, atol=1e-6)
    got = torch.autograd.grad((got_BHTC * slope_BHTC).sum(), leaves, allow_unused=True)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "last"), [("llama4", 3), ("ministral", 4), ("inkling", 4), ("logn", 4)])
def test_up_to_the_floor_nothing_changes(name: str, last: int) -> None:
    found = around(name, build_scheme("none", DIMS))
    factor_T = found.factor(torch.arange(1, 33).float())
    assert bool((factor_T[:last] == 1).all()) and float(factor_T[last]) > 1
    assert bool((factor_T.diff() >= 0).all())


def test_s_begins_where_the_last_token_of_training_has_a_factor_of_one_and_learns_in_every_block_and_head() -> None:
    model = contract.decoder(lambda dims: build_temperature("ssmax", build_scheme("rope", dims))).train()
    assert isinstance(model.scheme, SSMax)
    factor_HT = model.scheme.layer(1).factor(torch.arange(1, contract.TRAIN + 1).float())  # type: ignore[operator]
    torch.testing.assert_close(factor_HT[:, -1], torch.ones(4))
    tokens_BT = contract.text(32)
    model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    assert model.scheme.s_LH.grad is not None and bool((model.scheme.s_LH.grad != 0).all())


COMBINED = [
    ("llama4", "none"),
    ("ministral", "rope"),
    ("inkling", "kerple_log"),
    ("inkling", "inkling"),
    ("ssmax", "alibi"),
    ("logn", "stick_breaking"),
]


@pytest.mark.parametrize(("name", "scheme_name"), COMBINED)
@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda promise: promise.__name__)
def test_a_scheme_with_a_temperature_keeps_the_contract(
    name: str, scheme_name: str, promise: Callable[[contract.Make], None]
) -> None:
    promise(lambda dims: build_temperature(name, build_scheme(scheme_name, dims)))


def test_llama4_acts_in_blocks_without_positions() -> None:
    scheme = build_temperature("llama4", build_scheme("alternate", DIMS))
    assert [isinstance(scheme.layer(index), Temperature) for index in range(2)] == [False, True]
    with pytest.raises(Misuse, match="everywhere=true"):
        build_temperature("llama4", build_scheme("rope", DIMS))


def test_the_fast_paths_serve_and_a_bias_with_a_factor_has_its_own() -> None:
    def path(name: str, scheme: str) -> str:
        return kernel_path(build_temperature(name, build_scheme(scheme, DIMS)), DIMS)

    assert path("ssmax", "rope") == "sdpa causal"
    assert path("logn", "alibi") == "sdpa distance view"
    assert path("inkling", "rope") == "sdpa causal"
    assert path("inkling", "alibi") == "scheme"


def test_a_scheme_inside_another_keeps_a_bias_linear_in_its_input() -> None:
    assert build_scheme("drope", DIMS, inner="inkling").layer(0).linear_bias
    assert not build_scheme("fox", DIMS).layer(0).linear_bias


def test_transforms_reach_a_scheme_with_a_temperature_and_logn_is_refused() -> None:
    scheme, window = build_temperature("ssmax", build_scheme("rope", DIMS)), windows.from_config(None, DIMS)
    changed, _ = build_transform("yarn", DIMS).apply(scheme, window, 32)
    assert isinstance(changed, SSMax) and isinstance(changed.inner, Rope)
    plain = build_scheme("rope", DIMS)
    assert isinstance(plain, Rope)
    assert not torch.equal(*(rope.frequencies(32, torch.device("cpu")) for rope in (plain, changed.inner)))
    with pytest.raises(NotApplicable, match="a temperature already"):
        build_transform("logn", DIMS).apply(scheme, window, 32)


def test_impossible_temperatures_are_refused_in_one_line() -> None:
    for name, options, key in (
        ("llama4", {"floor": 0.0}, "temperature.floor"),
        ("logn", {"floor": 0.1}, "temperature.floor"),
        ("ssmax", {"floor": 1.0}, "floor"),
        ("lama4", {}, "llama4"),
    ):
        with pytest.raises(Misuse, match=key) as refusal:
            build_temperature(name, build_scheme("none", DIMS), **options)
        assert "\n" not in str(refusal.value)


def test_no_temperature_is_a_factor_of_one() -> None:
    assert options_of("temperature", "none", {}) == NO_TEMPERATURE
