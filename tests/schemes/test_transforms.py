"""What is changed at evaluation: formulas and known numbers, what is left alone, and which schemes each applies to.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, C channels of a head, D width of the residual
stream, I rotated pairs of channels, P entries of a table.
"""

import copy
import dataclasses
import inspect
import json
import math
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from support import contract
from torch import Tensor

from posexp import transforms, windows
from posexp.attention import attention
from posexp.config.components import read_options
from posexp.config.sections import config_dir
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.model.decoder import Decoder
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.rope import Rope, rotary_frequencies
from posexp.transforms import NotApplicable, Transform
from posexp.transforms.dynamic_ntk import dynamic_ntk_factor, dynamic_ntk_frequencies
from posexp.transforms.llama3 import llama3_frequencies
from posexp.transforms.longrope import longrope_attention_factor, longrope_frequencies
from posexp.transforms.ntk import ntk_frequencies
from posexp.transforms.pi import pi_frequencies
from posexp.transforms.table_interpolation import stretched_positions
from posexp.transforms.yarn import yarn_attention_factor, yarn_frequencies, yarn_ramp
from posexp.windows import Window

SCHEMES = sorted(file.stem for file in (config_dir() / "scheme").glob("*.yaml"))
FILES = sorted((config_dir() / "transform").glob("*.yaml"))
TRANSFORMS = [file.stem for file in FILES]
AUTHORS = Path(transforms.__file__).parent.parent / "check" / "authors" / "transforms.json"

TRAIN = 64
DIMS = Dims(d_model=32, n_head=2, n_layer=2, train_length=TRAIN)  # 8 pairs of channels
CPU = torch.device("cpu")


def frequencies(scheme: Scheme, tokens: int) -> Tensor:
    (rope,) = (part for part in scheme.modules() if isinstance(part, Rope))
    return rope.frequencies(tokens, CPU)


def applied(name: str, scheme: Scheme, length: int, **options: object) -> Scheme:
    changed, window = transforms.build_transform(name, scheme.dims, **options).apply(
        scheme, Window(scheme.dims), length
    )
    assert window.far is None
    return changed


# --- known numbers


def base_of(theta_I: Tensor) -> float:
    return float(theta_I[1]) ** -len(theta_I)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "base"), [(1.0, 10000), (4.0, 41829), (8.0, 85550)])
def test_ntk_is_a_larger_base(factor: float, base: int) -> None:
    theta_I = ntk_frequencies(rotary_frequencies(64, 10000.0, dtype=torch.float64), factor)
    assert round(base_of(theta_I)) == base == round(10000 * factor ** (64 / 62))
    torch.testing.assert_close(theta_I, rotary_frequencies(64, 10000 * factor ** (64 / 62), dtype=torch.float64))


def test_dynamic_ntk_starts_where_training_ended() -> None:
    assert [dynamic_ntk_factor(tokens, 512, 2.0) for tokens in (1, 512, 1024, 2048)] == [1, 1, 3, 7]
    theta_I = rotary_frequencies(64, 10000.0, dtype=torch.float64)
    assert torch.equal(dynamic_ntk_frequencies(theta_I, 512, 512, 2.0), theta_I)
    assert round(base_of(dynamic_ntk_frequencies(theta_I, 2048, 512, 2.0))) == round(10000 * 7 ** (64 / 62))


@pytest.mark.parametrize(
    ("rotary_dim", "train_length", "ramp"), [(64, 512, (3, 16)), (64, 1024, (5, 18)), (128, 4096, (20, 46))]
)
def test_the_ramp_of_yarn(rotary_dim: int, train_length: int, ramp: tuple[int, int]) -> None:
    assert yarn_ramp(rotary_dim, 10000.0, train_length, 32.0, 1.0) == ramp
    theta_I = rotary_frequencies(rotary_dim, 10000.0, dtype=torch.float64)
    ratio_I = theta_I / yarn_frequencies(theta_I, 10000.0, train_length, 4.0, 32.0, 1.0)
    assert torch.equal(ratio_I[: ramp[0] + 1], torch.ones(ramp[0] + 1).double())
    assert torch.equal(ratio_I[ramp[1] :], torch.full((rotary_dim // 2 - ramp[1],), 4.0).double())
    assert bool((ratio_I.diff() >= 0).all())
    middle = (ramp[0] + ramp[1]) // 2
    share = (middle - ramp[0]) / (ramp[1] - ramp[0])
    assert float(1 / ratio_I[middle]) == pytest.approx(1 - share + share / 4)


def test_the_ramp_of_yarn_stays_inside_the_head() -> None:
    assert yarn_ramp(16, 10000.0, 64, 32.0, 1.0) == (0, 3)
    assert yarn_ramp(64, 100.0, 10**9, 32.0, 1.0)[1] == 63
    for train_length in (1, 7, 64, 10**9):
        theta_I = rotary_frequencies(16, 10000.0)
        assert bool(yarn_frequencies(theta_I, 10000.0, train_length, 4.0, 32.0, 1.0).isfinite().all())


@pytest.mark.parametrize(("factor", "magnitude"), [(2, 1.0693), (4, 1.1386), (8, 1.2079)])
def test_the_attention_factor_of_yarn(factor: float, magnitude: float) -> None:
    assert yarn_attention_factor(factor) == pytest.approx(magnitude, abs=5e-5)
    q_BHTC = torch.randn(1, 2, 4, 16)
    for name in ("rope", "xpos", "p_rope", "pope"):
        scheme, pos_BT = build_scheme(name, DIMS), torch.zeros(1, 4, dtype=torch.long)
        before = scheme.rotate(q_BHTC, q_BHTC, pos_BT)
        after = applied("yarn", scheme, factor * TRAIN).rotate(q_BHTC, q_BHTC, pos_BT)
        for one_BHTC, other_BHTC in zip(before, after, strict=True):
            torch.testing.assert_close(other_BHTC, one_BHTC * magnitude, rtol=1e-4, atol=0)


def test_llama3_in_the_words_of_its_wavelengths() -> None:
    """Kept below L / high, divided above L / low, and between them as far along as L / wavelength is."""
    theta_I = rotary_frequencies(128, 500_000.0, dtype=torch.float64)
    got_I = llama3_frequencies(theta_I, 8192, 8.0, 1.0, 4.0)
    between = 0
    for theta, got in zip(theta_I.tolist(), got_I.tolist(), strict=True):
        wavelength = 2 * math.pi / theta
        if wavelength < 8192 / 4:
            assert got == theta
        elif wavelength > 8192 / 1:
            assert got == theta / 8
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            assert got == pytest.approx((1 - smooth) * theta / 8 + smooth * theta)
            between += 1
    assert between > 3
    assert torch.equal(llama3_frequencies(torch.zeros(2), 64, 8.0, 1.0, 4.0), torch.zeros(2))  # those p-RoPE dropped


def test_longrope_divides_each_frequency_and_goes_by_the_input_length() -> None:
    theta_I = rotary_frequencies(16, 10000.0)
    long = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 8.0]
    torch.testing.assert_close(longrope_frequencies(theta_I, torch.tensor(long)) * torch.tensor(long), theta_I)
    assert longrope_attention_factor(4.0, 512) == pytest.approx(math.sqrt(1 + math.log(4) / math.log(512)))
    scheme = applied("longrope", build_scheme("rope", DIMS), 4 * TRAIN, long=long)
    assert torch.equal(frequencies(scheme, TRAIN), theta_I)
    assert torch.equal(frequencies(scheme, TRAIN + 1), theta_I / torch.tensor(long))
    usual = applied("longrope", build_scheme("rope", DIMS), 4 * TRAIN)
    torch.testing.assert_close(frequencies(usual, TRAIN + 1), ntk_frequencies(theta_I, 4.0))
    assert not scheme.prefix_stable


def test_pi_divides_and_p_rope_drops_and_base_is_another_base() -> None:
    theta_I = rotary_frequencies(16, 10000.0)
    assert torch.equal(pi_frequencies(theta_I, 4.0), theta_I / 4)
    dropped_I = frequencies(applied("p_rope", build_scheme("rope", DIMS), TRAIN, p=0.5), TRAIN)
    assert torch.equal(dropped_I, theta_I * (torch.arange(8) < 4))
    assert torch.equal(
        frequencies(applied("base", build_scheme("rope", DIMS), TRAIN, base=500.0), 9), rotary_frequencies(16, 500.0)
    )


def frozen() -> list[dict]:
    return json.loads(AUTHORS.read_text()) if AUTHORS.is_file() else []


@pytest.mark.parametrize(
    "case", frozen(), ids=lambda case: f"{case['transform']}-{case['rotary_dim']}-{case['length']}"
)
def test_frequencies_are_those_of_other_libraries(case: dict) -> None:
    dims = Dims(case["rotary_dim"], 1, 1, case["train_length"])
    scheme = applied(
        case["transform"], build_scheme("rope", dims, base=case["base"]), case["length"], **case["options"]
    )
    torch.testing.assert_close(frequencies(scheme, case["length"]), torch.tensor(case["wanted"]), rtol=3e-6, atol=1e-12)
    assert scheme.magnitude == pytest.approx(case["attention_factor"], rel=1e-6)


# --- every frequency transform

NULL_FACTOR = [
    name for name in TRANSFORMS if read_options(config_dir() / "transform" / f"{name}.yaml").get("factor", 0) is None
]
ROTARY = [name for name in NULL_FACTOR if name != "alibi_scaling"]
UNCHANGED = [*((name, {"factor": 1.0}) for name in ROTARY), *((name, {}) for name in ROTARY)]
UNCHANGED += [("dynamic_ntk", {}), ("p_rope", {"p": 1.0}), ("base", {"base": 10000.0})]


@pytest.mark.parametrize("scheme_name", ["rope", "xpos", "pope", "p_rope"])
@pytest.mark.parametrize(("name", "options"), UNCHANGED, ids=str)
def test_at_factor_1_a_frequency_transform_is_the_identity_bit_for_bit(
    name: str, options: dict, scheme_name: str
) -> None:
    torch.manual_seed(0)
    scheme = build_scheme(scheme_name, DIMS)
    changed = applied(name, scheme, TRAIN, **options)
    assert name not in ROTARY or transforms.build_transform(name, DIMS, **options).unchanged(TRAIN)
    q_BHTC, k_BHTC, pos_BT = torch.randn(1, 2, TRAIN, 16), torch.randn(1, 2, TRAIN, 16), torch.arange(TRAIN)[None]
    for one, other in zip(scheme.rotate(q_BHTC, k_BHTC, pos_BT), changed.rotate(q_BHTC, k_BHTC, pos_BT), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scheme_name", ["rope", "xpos", "pope", "p_rope", "randomized", "alternate"])
@pytest.mark.parametrize("name", [*ROTARY, "dynamic_ntk", "base", "p_rope"])
def test_a_frequency_transform_reaches_every_rotary_scheme(name: str, scheme_name: str) -> None:
    scheme = build_scheme(scheme_name, DIMS)
    before_I = frequencies(scheme, 8 * TRAIN)
    after_I = frequencies(applied(name, scheme, 8 * TRAIN, **({"p": 0.25} if name == "p_rope" else {})), 8 * TRAIN)
    assert after_I[0] == before_I[0] or name == "pi"
    assert bool((after_I <= before_I).all()) and not torch.equal(after_I, before_I)


def test_transforms_add_up() -> None:
    once = applied("pi", build_scheme("rope", DIMS), TRAIN, factor=2.0)
    twice = applied("yarn", once, TRAIN, factor=4.0)
    known = (10000.0, TRAIN, 4.0, 32.0, 1.0)
    assert torch.equal(frequencies(twice, 9), yarn_frequencies(rotary_frequencies(16, 10000.0) / 2, *known))
    assert torch.equal(frequencies(once, 9), rotary_frequencies(16, 10000.0) / 2)


def test_a_factor_of_its_own_for_every_length() -> None:
    theta_I = rotary_frequencies(16, 10000.0)
    for length, factor in ((1, 1.0), (TRAIN, 1.0), (96, 1.5), (16 * TRAIN, 16.0)):
        assert torch.equal(frequencies(applied("pi", build_scheme("rope", DIMS), length), 9), theta_I / factor)


# --- far keys elsewhere

FAR = [
    ("rerope", {"reach": 10}),
    ("rerope", {}),
    ("leaky_rerope", {"reach": 10, "k": 4.0}),
    ("leaky_rerope", {}),
    ("self_extend", {"window": 10, "group": 3}),
    ("self_extend", {"window": 9, "group": 4}),
    ("self_extend", {}),
]


def counted_distance(name: str, transform: Transform, m: int, n: int, length: int) -> float:
    """What the distance between query m and key n counts as, in the papers' words."""
    if name == "self_extend":
        W, G = transform.window, transform.grouped(length)
        return m - n if m - n < W else m // G - n // G + W - W // G
    w = transform.reach
    k = transform.slowdown(length) if name == "leaky_rerope" else math.inf
    return m - n if m - n <= w else w + (m - n - w) / k


@pytest.mark.parametrize("scheme_name", ["rope", "xpos", "p_rope", "pope"])
@pytest.mark.parametrize(("name", "options"), FAR, ids=str)
def test_far_keys_are_compared_at_the_distance_they_count_as(name: str, options: dict, scheme_name: str) -> None:
    torch.manual_seed(0)
    dims = Dims(d_model=32, n_head=2, n_layer=2, train_length=24)
    T = 90
    scheme = build_scheme(scheme_name, dims)
    transform = transforms.build_transform(name, dims, **options)
    same, window = transform.apply(scheme, Window(dims), T)
    assert same is scheme and window.far is not None
    q_BHTC, k_BHTC, v_BHTC = torch.randn(3, 1, 2, T, 16).double()
    m_N, n_N = torch.tril_indices(T, T)
    counted = [(counted_distance(name, transform, m, n, T), 0) for m, n in zip(m_N.tolist(), n_N.tolist(), strict=True)]
    logits_BHQK = torch.full((1, 2, T, T), -torch.inf).double()
    with torch.no_grad():
        # each pair of a query and a key by itself: a sequence of two tokens, of which the key is at 0
        pair_NH2C = torch.stack((q_BHTC[0, :, m_N], k_BHTC[0, :, n_N]), dim=2).transpose(0, 1)
        q_NH2C, k_NH2C = scheme.rotate(pair_NH2C, pair_NH2C, torch.tensor(counted))
        logits_BHQK[0, :, m_N, n_N] = (q_NH2C[:, :, 0] * k_NH2C[:, :, 1]).sum(-1).T * 16**-0.5
        got_BHTC = attention(scheme, q_BHTC, k_BHTC, v_BHTC, torch.arange(T)[None], torch.zeros(1, T, 32), window)
        plain_BHTC = attention(scheme, q_BHTC, k_BHTC, v_BHTC, torch.arange(T)[None], torch.zeros(1, T, 32))
    wanted_BHTC = logits_BHQK.softmax(-1) @ v_BHTC
    # leaky positions are float32
    torch.testing.assert_close(got_BHTC, wanted_BHTC, rtol=0, atol=1e-4 if name == "leaky_rerope" else 1e-10)
    torch.testing.assert_close(got_BHTC[:, :, :6], plain_BHTC[:, :, :6], rtol=0, atol=1e-10)
    assert not torch.allclose(got_BHTC, plain_BHTC, atol=0.01)


@pytest.mark.parametrize("length", [65, 100, 256, 1024, 4096])
def test_usual_reaches_keep_distances_within_training(length: int) -> None:
    for name in ("leaky_rerope", "self_extend"):
        transform = transforms.build_transform(name, DIMS)
        furthest = counted_distance(name, transform, length - 1, 0, length)
        assert furthest <= TRAIN
        # and no more is given up than needed
        assert furthest > (TRAIN - 1 if name == "leaky_rerope" else TRAIN / 4)
    assert transforms.build_transform("rerope", DIMS).describe(length) == "rerope(reach=16)"


@pytest.mark.parametrize("name", ["leaky_rerope", "self_extend"])
def test_within_the_training_length_far_keys_stay(name: str) -> None:
    _, window = transforms.build_transform(name, DIMS).apply(build_scheme("rope", DIMS), Window(DIMS), TRAIN)
    assert window.far is None


@pytest.mark.parametrize("name", ["rerope", "leaky_rerope", "self_extend"])
def test_a_window_that_only_hides_goes_on_hiding(name: str) -> None:
    seen = windows.build_window("sliding", DIMS, size=40)
    _, window = transforms.build_transform(name, DIMS).apply(build_scheme("rope", DIMS), seen, 8 * TRAIN)
    assert (window.fingerprint(), window.size) == ("sliding 40", 40)
    assert window.far is not None and seen.far is None


@pytest.mark.parametrize("name", ["rerope", "leaky_rerope", "self_extend"])
@pytest.mark.parametrize(
    ("window", "reason"), [("lambda", "both change"), ("sinks", "both change"), ("alternate", "several")]
)
def test_a_window_that_moves_far_keys_itself_is_refused(name: str, window: str, reason: str) -> None:
    with pytest.raises(Misuse, match=reason) as refusal:
        transforms.build_transform(name, DIMS).apply(
            build_scheme("rope", DIMS), windows.build_window(window, DIMS), 8 * TRAIN
        )
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["rerope", "leaky_rerope", "self_extend"])
def test_far_keys_need_positions_that_are_counted(name: str) -> None:
    transform = transforms.build_transform(name, DIMS)
    with pytest.raises(NotApplicable, match="draws its positions at evaluation"):
        transform.apply(build_scheme("randomized", DIMS, at_evaluation=True).eval(), Window(DIMS), 4 * TRAIN)
    transform.apply(build_scheme("randomized", DIMS, at_evaluation=False).eval(), Window(DIMS), 4 * TRAIN)


class ReadsContent(Rope):
    """Rotary, with an attention of its own."""

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor:
        return v_BHTC


@pytest.mark.parametrize("name", ["rerope", "leaky_rerope", "self_extend"])
def test_a_scheme_with_its_own_attention_has_no_far_keys_to_move(name: str) -> None:
    with pytest.raises(NotApplicable, match="reads content"):
        transforms.build_transform(name, DIMS).apply(ReadsContent(DIMS, 10000.0, 1.0), Window(DIMS), 4 * TRAIN)


@pytest.mark.parametrize("name", ["dynamic_ntk", "longrope"])
def test_what_goes_by_the_input_length_refuses_capped_distances(name: str) -> None:
    for window in (windows.build_window("lambda", DIMS), windows.Window(DIMS)):
        transform = transforms.build_transform(name, DIMS)
        if window.far is None:
            transform.apply(build_scheme("rope", DIMS), window, 8 * TRAIN)
        else:
            with pytest.raises(Misuse, match="caps distances"):
                transform.apply(build_scheme("rope", DIMS), window, 8 * TRAIN)


# --- log-n


def test_logn_multiplies_logits() -> None:
    """max(1, ln n / ln L) for the n-th query. Adding s ln n instead would change no weight at all."""
    torch.manual_seed(0)
    T = 4 * TRAIN
    scheme = build_scheme("alibi", DIMS)
    q_BHTC, k_BHTC, v_BHTC = torch.randn(3, 1, 2, T, 16).double()
    pos_BT, x_BTD = torch.arange(T)[None], torch.zeros(1, T, 32)
    index_T = torch.arange(T)
    bias_HTT = scheme.distance_bias((index_T[:, None] - index_T).clamp(min=0).flatten()).view(2, T, T)
    factor_T1 = ((index_T + 1).double().log() / math.log(TRAIN)).clamp(min=1)[:, None]
    future_TT = index_T[:, None] < index_T

    def weighed(logits_BHTT: Tensor) -> Tensor:
        return (logits_BHTT + bias_HTT).masked_fill(future_TT, -torch.inf).softmax(-1) @ v_BHTC

    logits_BHTT = q_BHTC @ k_BHTC.transpose(-1, -2) / 4
    plain_BHTC, wanted_BHTC = weighed(logits_BHTT), weighed(logits_BHTT * factor_T1)
    got_BHTC = attention(applied("logn", scheme, T), q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD)
    torch.testing.assert_close(got_BHTC, wanted_BHTC)
    torch.testing.assert_close(weighed(logits_BHTT - factor_T1), plain_BHTC)
    assert not torch.allclose(wanted_BHTC[:, :, -1], plain_BHTC[:, :, -1], atol=1e-3)
    assert torch.equal(got_BHTC[:, :, :TRAIN], attention(scheme, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD)[:, :, :TRAIN])


@pytest.mark.parametrize("name", SCHEMES)
def test_logn_reaches_every_scheme_and_starts_at_the_training_length(name: str) -> None:
    model = contract.decoder(lambda dims: build_scheme(name, dims))
    length = contract.reach(model.scheme, 4 * contract.TRAIN)
    tokens_BT = contract.text(length)
    torch.manual_seed(0)
    before_BTD = contract.hidden(model, tokens_BT)
    model.scheme = applied("logn", model.scheme, length).eval()
    torch.manual_seed(0)
    after_BTD = contract.hidden(model, tokens_BT)
    start = contract.TRAIN
    assert contract.furthest(before_BTD[:, :start], after_BTD[:, :start]) == 0
    assert length == start or contract.furthest(before_BTD[:, start:], after_BTD[:, start:]) > 1e-5


def test_logn_is_the_same_for_near_and_far_keys() -> None:
    """As in bojone/rerope: the two transforms together, on logits that only the log-n factor tells apart."""
    dims = Dims(d_model=16, n_head=1, n_layer=1, train_length=8)
    scheme, window = transforms.build_transform("rerope", dims).apply(build_scheme("p_rope", dims), Window(dims), 64)
    ones_BHTC, v_BHTC = torch.ones(1, 1, 64, 16), torch.randn(1, 1, 64, 16)
    ones_BHTC[..., :6] = ones_BHTC[..., 8:14] = 0  # what p-RoPE does not turn is left
    pos_BT, x_BTD = torch.arange(64)[None], torch.zeros(1, 64, 16)
    got_BHTC = attention(applied("logn", scheme, 64), ones_BHTC, ones_BHTC, v_BHTC, pos_BT, x_BTD, window)
    mean_BHTC = v_BHTC.cumsum(2) / torch.arange(1, 65)[:, None]  # equal logits, near and far
    torch.testing.assert_close(got_BHTC, mean_BHTC)


# --- slopes, tables, offsets


def test_alibi_scaling_divides_the_slopes_wherever_they_are() -> None:
    gap_N = torch.arange(4 * TRAIN)
    scheme = build_scheme("alibi", DIMS)
    flatter = applied("alibi_scaling", scheme, 4 * TRAIN)
    torch.testing.assert_close(flatter.distance_bias(gap_N), scheme.distance_bias(gap_N) / 4)
    torch.testing.assert_close(
        flatter.distance_bias(gap_N)[:, -1], scheme.distance_bias(gap_N)[:, TRAIN - 1], rtol=0.02, atol=0
    )
    inside = applied("alibi_scaling", build_scheme("pose", DIMS, inner="alibi"), 4 * TRAIN).eval()
    torch.testing.assert_close(inside.distance_bias(gap_N), scheme.distance_bias(gap_N) / 4)


def test_a_table_is_spread_over_the_evaluated_length() -> None:
    """Position p reads the table at p (P - 1) / (length - 1), on the line between two entries."""
    scheme = build_scheme("learned", DIMS)
    length = 4 * TRAIN
    stretched = applied("table_interpolation", scheme, length)
    assert (stretched.max_length, stretched.prefix_stable) == (length, True)
    pos_BT = torch.arange(length)[None]
    got_TD = stretched.embed(torch.zeros(1, length, 32), pos_BT)[0]
    table_PD = scheme.embed(torch.zeros(1, TRAIN, 32), torch.arange(TRAIN)[None])[0]
    at_T = torch.arange(length, dtype=torch.float64) * (TRAIN - 1) / (length - 1)
    low_T = at_T.floor().long().clamp(max=TRAIN - 2)
    share_T1 = (at_T - low_T)[:, None].float()
    torch.testing.assert_close(
        got_TD, table_PD[low_T] * (1 - share_T1) + table_PD[low_T + 1] * share_T1, rtol=0, atol=1e-4
    )
    torch.testing.assert_close(got_TD[[0, -1]], table_PD[[0, -1]])
    # what is computed for a token does not depend on how many follow
    assert torch.equal(stretched.embed(torch.zeros(1, 9, 32), pos_BT[:, :9])[0], got_TD[:9])


@pytest.mark.parametrize("length", [65, 100, 1024, 65536])
def test_a_stretched_table_is_never_read_past_its_end(length: int) -> None:
    at_T = stretched_positions(torch.arange(length), TRAIN, length)
    assert float(at_T.max()) == pytest.approx(TRAIN - 1) and float(at_T.max()) <= TRAIN - 1


def test_a_table_within_its_length_is_left_as_trained() -> None:
    scheme = build_scheme("learned", DIMS)
    x_BTD, pos_BT = torch.randn(1, TRAIN, 32), torch.arange(TRAIN)[None]
    short = applied("table_interpolation", scheme, 17)
    assert torch.equal(short.embed(x_BTD, pos_BT), scheme.embed(x_BTD, pos_BT)) and short.max_length == TRAIN


@pytest.mark.parametrize("name", SCHEMES)
def test_an_offset_changes_what_is_not_relative(name: str) -> None:
    model = contract.decoder(lambda dims: build_scheme(name, dims))
    scheme = model.scheme
    if not scheme.reads_positions or scheme.reads_text:
        with pytest.raises(NotApplicable, match=r"reads no positions|positions from the text"):
            applied("offset", scheme, 32, by=20)
        return
    by = 1000 if scheme.max_length is None else 20
    torch.manual_seed(0)
    before_BTD = contract.hidden(model, contract.text(32))
    model.scheme = applied("offset", scheme, 32, by=by).eval()
    torch.manual_seed(0)
    moved = contract.furthest(contract.hidden(model, contract.text(32)), before_BTD)
    assert moved < 1e-2 if scheme.relative else moved > 1e-2


def test_an_offset_uses_up_a_table() -> None:
    assert applied("offset", build_scheme("learned", DIMS), 9, by=TRAIN - 9).max_length == 9
    with pytest.raises(NotApplicable, match=f"ends at {TRAIN} tokens"):
        applied("offset", build_scheme("learned", DIMS), 9, by=TRAIN)


# --- inputs of other lengths before

LENGTHS = (9, 3 * TRAIN, 40, 4 * TRAIN)  # long after short and short after long


def told_apart(model: Decoder) -> list[int]:
    """Lengths at which a model that has read inputs of others gives something else than one that has read none."""
    wrong, unread = [], copy.deepcopy(model)
    for length in LENGTHS:
        tokens_BT = contract.text(contract.reach(model.scheme, length))
        if not torch.equal(contract.hidden(model, tokens_BT), contract.hidden(copy.deepcopy(unread), tokens_BT)):
            wrong.append(length)
    return wrong


def decoder_with(scheme_name: str, name: str | None, **options: float) -> Decoder:
    """Of a scheme, changed by a transform for inputs of at most 4 times the training length, if one is named."""
    torch.manual_seed(0)
    model = contract.decoder(lambda dims: build_scheme(scheme_name, dims))
    if name is not None:
        transform = transforms.build_transform(name, model.scheme.dims, **options)
        scheme, window = transform.apply(model.scheme, model.window, 4 * TRAIN)
        model = transform.model(model)
        model.scheme, model.window = scheme.eval(), window
    return model


@pytest.mark.parametrize("name", [None, *TRANSFORMS])
@pytest.mark.parametrize("scheme_name", SCHEMES)
def test_nothing_is_kept_from_an_input_of_another_length(scheme_name: str, name: str | None) -> None:
    try:
        model = decoder_with(scheme_name, name)
    except NotApplicable:
        return
    assert told_apart(model) == []


class KeepsTheFirstTable(Rope):
    """Gives positions past the first input the angles of its last one."""

    table: Tensor | None = None

    def angles(self, pos_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        if self.table is None:
            self.table = super().angles(pos_BT, dtype)[0]
        return self.table[pos_BT.clamp(max=len(self.table) - 1)]


class KeepsTheLongestBase(Rope):
    """Goes by the longest input so far, as rotary modules of transformers did under dynamic NTK."""

    longest = 0

    def frequencies(self, tokens: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        self.longest = max(self.longest, tokens)
        return super().frequencies(self.longest, device, dtype)


@pytest.mark.parametrize(
    ("mistake", "name", "wrong"),
    [
        (KeepsTheFirstTable, None, [3 * TRAIN, 40, 4 * TRAIN]),
        (KeepsTheLongestBase, "dynamic_ntk", [40]),
        (KeepsTheLongestBase, "longrope", [40]),
    ],
)
def test_what_is_kept_from_an_input_of_another_length_is_seen(
    mistake: type[Rope], name: str | None, wrong: list[int]
) -> None:
    model = contract.decoder(lambda dims: mistake(dims, 10000.0, 1.0))
    if name is not None:
        model.scheme, _ = transforms.build_transform(name, model.scheme.dims).apply(
            model.scheme, model.window, 4 * TRAIN
        )
    assert told_apart(model) == wrong


# --- no change without an effect

UNROUNDED = {"abacus", "coupling"}  # bfloat16 leaves the places of digits as they are in numbers of at most 256


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("scheme_name", SCHEMES)
def test_a_transform_that_applies_changes_what_the_model_gives(scheme_name: str, name: str) -> None:
    """In inputs longer than training; but for an offset, which a relative scheme does not notice."""
    try:
        changed = decoder_with(scheme_name, name, **({"p": 0.25} if name == "p_rope" else {}))
    except NotApplicable:
        return
    plain = decoder_with(scheme_name, None)
    if plain.scheme.relative and name == "offset":
        return
    if contract.reach(plain.scheme, 4 * TRAIN) < 4 * TRAIN:
        return  # a table of the training's positions
    rounds = name == "bf16_positions"  # whole numbers from 257 on, where a bias may hide nearly all of the change
    tokens_BT = contract.text(contract.reach(changed.scheme, (8 if rounds else 4) * TRAIN))
    change = contract.furthest(contract.hidden(changed, tokens_BT), contract.hidden(plain, tokens_BT))
    if rounds and scheme_name in UNROUNDED:
        assert change == 0
    else:
        assert change > (0 if rounds else 1e-4)


@pytest.mark.parametrize(("name", "options"), FAR[:1] + FAR[2:3] + FAR[4:5], ids=str)
def test_far_keys_that_the_window_hides_are_nothing_to_change(name: str, options: dict) -> None:
    transform = transforms.build_transform(name, DIMS, **options)
    reach = 9 if name == "self_extend" else 10
    for window in (
        windows.build_window("sliding", DIMS, size=reach + 1),
        windows.build_window("bca", DIMS, block=reach // 2),
    ):
        with pytest.raises(NotApplicable, match="nothing to change"):
            transform.apply(build_scheme("rope", DIMS), window, 4 * TRAIN)
    transform.apply(build_scheme("rope", DIMS), windows.build_window("sliding", DIMS, size=reach + 2), 4 * TRAIN)


@pytest.mark.parametrize("name", ["ntk", "dynamic_ntk"])
def test_ntk_has_nothing_to_change_in_a_single_pair(name: str) -> None:
    scheme = Rope(dataclasses.replace(DIMS, d_model=4), 10000.0, 1.0)
    with pytest.raises(NotApplicable, match="one pair of channels"):
        transforms.build_transform(name, scheme.dims).apply(scheme, Window(scheme.dims), 4 * TRAIN)


# --- all of them


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("scheme_name", SCHEMES)
def test_a_transform_gives_an_answer_or_says_that_it_does_not_apply(scheme_name: str, name: str) -> None:
    model = contract.decoder(lambda dims: build_scheme(scheme_name, dims))
    model.scheme.progress(1.0)
    scheme, dims = model.scheme, model.scheme.dims
    length = 4 * contract.TRAIN
    before = copy.deepcopy(scheme)
    fingerprint, promises = scheme.fingerprint(), dict(vars(scheme))
    try:
        model.scheme, model.window = transforms.build_transform(name, dims).apply(scheme, model.window, length)
    except NotApplicable as refusal:
        assert "\n" not in str(refusal)
    else:
        model.scheme.eval()
        tokens_BT = contract.text(contract.reach(model.scheme, length))
        hidden_BTD = contract.hidden(model, tokens_BT)
        assert bool(model.logits(hidden_BTD).isfinite().all())
        if model.scheme.prefix_stable:
            assert contract.furthest(contract.hidden(model, tokens_BT[:, :-1]), hidden_BTD[:, :-1]) < 1e-4
    assert (scheme.fingerprint(), dict(vars(scheme)).keys()) == (fingerprint, promises.keys())
    assert all(promises[key] is vars(scheme)[key] for key in promises)
    for one, other in zip(scheme.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    for part, other in zip(scheme.modules(), before.modules(), strict=True):
        assert getattr(part, "rescale", None) is getattr(other, "rescale", None)
        assert getattr(part, "base", None) == getattr(other, "base", None)


LOW_PRECISION = {"int8", "fp8", "bf16_positions"}  # their classes share a module
APPLIES = {
    "rope": set(TRANSFORMS) - {"alibi_scaling", "table_interpolation"},
    "xpos": set(TRANSFORMS) - {"alibi_scaling", "table_interpolation"},
    "alibi": {"alibi_scaling", "logn", "offset"} | LOW_PRECISION,
    # and bf16_positions of a table of more than 256 entries, and an offset shorter than the table
    "learned": {"table_interpolation", "logn", "int8", "fp8"},
    "sinusoidal": {"logn", "offset"} | LOW_PRECISION,
    "none": {"logn", "int8", "fp8"},
}


@pytest.mark.parametrize("scheme_name", APPLIES)
def test_which_transforms_apply(scheme_name: str) -> None:
    def applies(name: str) -> bool:
        try:
            transforms.build_transform(name, DIMS).apply(build_scheme(scheme_name, DIMS), Window(DIMS), 4 * TRAIN)
        except NotApplicable:
            return False
        return True

    assert {name for name in TRANSFORMS if applies(name)} == APPLIES[scheme_name]


def test_positions_that_were_dropped_are_not_transformed() -> None:
    for inner, name in (("rope", "yarn"), ("rope", "rerope"), ("alibi", "alibi_scaling")):
        scheme = build_scheme("drope", DIMS, inner=inner)
        transforms.build_transform(name, DIMS).apply(scheme, Window(DIMS), 4 * TRAIN)
        scheme.progress(1.0)
        with pytest.raises(NotApplicable, match="reads no positions"):
            transforms.build_transform(name, DIMS).apply(scheme, Window(DIMS), 4 * TRAIN)


@pytest.mark.parametrize(
    ("name", "options", "description"),
    [
        ("pi", {}, "pi(factor=4)"),
        ("pi", {"factor": 2.5}, "pi(factor=2.5)"),
        ("ntk", {}, "ntk(factor=4)"),
        ("dynamic_ntk", {}, "dynamic_ntk(factor=2)"),
        ("yarn", {}, "yarn(factor=4, beta_fast=32, beta_slow=1)"),
        ("longrope", {}, "longrope(factor=4, short=1, long=ntk)"),
        ("longrope", {"short": [1.0] * 8}, "longrope(factor=4, short=given, long=ntk)"),
        ("llama3", {}, "llama3(factor=4, low=1, high=4)"),
        ("base", {}, "base(500000)"),
        ("p_rope", {}, "p_rope(p=0.75)"),
        ("rerope", {}, "rerope(reach=16)"),
        ("leaky_rerope", {}, "leaky_rerope(reach=16, k=5)"),
        ("self_extend", {}, "self_extend(window=16, group=9)"),
        ("logn", {}, "logn(from=64)"),
        ("alibi_scaling", {}, "alibi_scaling(factor=4)"),
        ("table_interpolation", {}, "table_interpolation(to=256)"),
        ("offset", {}, "offset(by=1000)"),
    ],
    ids=str,
)
def test_a_transform_says_what_it_really_does(name: str, options: dict, description: str) -> None:
    assert transforms.build_transform(name, DIMS, **options).describe(4 * TRAIN) == description


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("pi", {"factor": 0.5}, "factor=0.5 must be at least 1"),
        ("pi", {"factor": math.nan}, "factor=nan must be at least 1"),
        ("dynamic_ntk", {"factor": 0.0}, "factor=0 must be at least 1"),
        ("yarn", {"beta_fast": 1.0, "beta_slow": 2.0}, "beta_fast=1 must be at least 2"),
        ("yarn", {"beta_slow": 0.0}, "beta_slow=0"),
        ("longrope", {"long": []}, "long=0"),
        ("longrope", {"short": [1.0, -1.0]}, "short=-1"),
        ("llama3", {"low": 4.0, "high": 4.0}, "low=4 must be at least 0 and below"),
        ("base", {"base": 0.0}, "base=0.0 must be above 0"),
        ("rerope", {"reach": 0}, "reach=0 must be at least 1"),
        ("leaky_rerope", {"k": 0.5}, "k=0.5 must be at least 1"),
        ("self_extend", {"group": 0}, "group=0 must be at least 1"),
        ("self_extend", {"window": 0}, "window=0 must be at least 1"),
        ("alibi_scaling", {"factor": 0.0}, "factor=0 must be at least 1"),
        ("offset", {"by": -1}, "by=-1 must be at least 0"),
        ("offset", {"by": "far"}, "by"),
        ("offset", {"to": 1}, "no option 'to'"),
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused(name: str, options: dict, reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        transforms.build_transform(name, DIMS, **options)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [("longrope", {"long": [1.0, 2.0]}, "long must have 8 factors.* got 2"), ("p_rope", {"p": 0.1}, "keeps 0 of 8")],
    ids=str,
)
def test_an_option_that_does_not_fit_the_scheme_is_refused(name: str, options: dict, reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        applied(name, build_scheme("rope", DIMS), 4 * TRAIN, **options)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_yaml_holds_every_option_of_a_transform(file: Path) -> None:
    first_line = file.read_text(encoding="utf-8").splitlines()[0]
    assert first_line.startswith("# ") and first_line.count(" · ") == 2
    options = read_options(file)
    target = options.pop("_target_")
    assert target.split(".")[2] == ("low_precision" if file.stem in LOW_PRECISION else file.stem)
    first, *parameters = list(inspect.signature(get_class(target).__init__).parameters.values())[1:]
    assert first.name == "dims" and [parameter.name for parameter in parameters] == list(options)
    assert all(parameter.default is parameter.empty for parameter in parameters)
