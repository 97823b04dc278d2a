"""Every scheme against other people's code, its paper's formula and known anchors.

The numbers of other people's code are in posexp/check/authors, frozen by scripts/freeze_authors.
Shape suffixes: P positions, C channels of a head, I pairs of channels, D width of the residual stream, N distances,
H heads.
"""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from posexp import transforms
from posexp.attention import attention
from posexp.check import authors
from posexp.check.authors import FOLDER, Case
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import EMBEDDING_STD, Scheme, build_scheme
from posexp.schemes.alibi import Alibi, alibi_slopes
from posexp.schemes.learned import Learned
from posexp.schemes.rope import Rope, rotary_frequencies
from posexp.schemes.sinusoidal import Sinusoidal
from posexp.schemes.xpos import XPos, xpos_decay
from posexp.temperatures import Temperature, build_temperature
from posexp.windows import Window

TRANSFORMS = FOLDER / "transforms.json"
TEMPERATURES = FOLDER / "temperatures.json"
SCHEMES = sorted(path.stem for path in FOLDER.glob("*.json") if path not in (TRANSFORMS, TEMPERATURES))
CASES = [(name, case) for name in SCHEMES for case in authors.cases(name)]
POSITIONS = torch.tensor([0, 1, 2, 3, 17, 64, 255, 513, 1024, 2047])


@dataclass(frozen=True)
class TransformCase:
    """The frequencies of a rotary scheme for inputs of `length` tokens, after a transform without retraining."""

    source: str
    transform: str
    options: dict[str, Any]
    rotary_dim: int
    base: float
    train_length: int
    length: int
    wanted: list[float]  # radians per token of each pair
    attention_factor: float  # multiplies queries and keys


def one_head(C: int, train_length: int = 64) -> Dims:
    return Dims(d_model=C, n_head=1, n_layer=1, train_length=train_length)


def title(value: object) -> str:
    if isinstance(value, Case | TransformCase):
        options = ",".join(f"{name}={option}" for name, option in value.options.items() if not isinstance(option, list))
        return f"{getattr(value, 'transform', '')} {value.source.split(' ')[0]} {options}".strip()
    return str(value)


@pytest.mark.parametrize(("name", "case"), CASES, ids=title)
def test_a_scheme_gives_its_authors_numbers(name: str, case: Case) -> None:
    assert authors.worst(case, build_scheme(name, case.dims, **case.options)) <= case.tolerance, case.source


@pytest.mark.parametrize(("name", "case"), CASES, ids=title)
def test_one_wrong_number_is_found(name: str, case: Case) -> None:
    wanted = json.loads(json.dumps(case.wanted))
    last = wanted
    while isinstance(last[-1], list):
        last = last[-1]
    last[-1] += 0.01 * (1 + abs(last[-1]))
    wrong = replace(case, wanted=wanted)
    assert authors.worst(wrong, build_scheme(name, case.dims, **case.options)) > case.tolerance


@pytest.mark.parametrize("case", [TransformCase(**entry) for entry in json.loads(TRANSFORMS.read_text())], ids=title)
def test_a_transform_gives_other_libraries_frequencies(case: TransformCase) -> None:
    dims = one_head(case.rotary_dim, case.train_length)
    transform = transforms.build_transform(case.transform, dims, **case.options)
    changed, _ = transform.apply(build_scheme("rope", dims, base=case.base), Window(dims), case.length)
    assert isinstance(changed, Rope)
    # Purely relative, because the slowest frequencies matter most and are far below 1.
    assert changed.frequencies(case.length, torch.device("cpu")).tolist() == pytest.approx(case.wanted, rel=1e-5, abs=0)
    assert float(changed.magnitude) == pytest.approx(case.attention_factor, rel=1e-5)


@pytest.mark.parametrize("entry", json.loads(TEMPERATURES.read_text()), ids=lambda entry: entry["temperature"])
def test_a_temperature_gives_its_authors_factors(entry: dict[str, Any]) -> None:
    scheme = build_scheme("none", one_head(8, entry["train_length"]))
    found = build_temperature(entry["temperature"], scheme, rate=entry["rate"], floor=1.0)
    assert isinstance(found, Temperature)
    assert found.factor(torch.tensor(entry["tokens"]).float()).tolist() == pytest.approx(entry["wanted"], rel=1e-6)


def test_weights_of_no_parameter_are_refused() -> None:
    case = replace(authors.cases("alibi")[0], weights={"slope_H": [1.0]})
    with pytest.raises(KeyError, match="slope_H"):
        authors.worst(case, build_scheme("alibi", case.dims))


def test_what_is_not_a_number_is_infinitely_wrong() -> None:
    case = authors.cases("rope")[0]
    broken = replace(case, inputs={**case.inputs, "k": [math.nan] * len(case.inputs["k"])})
    assert authors.worst(broken, build_scheme("rope", case.dims)) == math.inf


def test_a_scheme_of_nobody_has_no_cases() -> None:
    assert authors.cases("none") == []


def drawn(C: int) -> tuple[Tensor, Tensor]:
    """A query and a key without symmetry."""
    channel_C = torch.arange(C, dtype=torch.float32)
    return torch.sin(1.7 * channel_C + 0.4), torch.cos(0.9 * channel_C * channel_C + 0.2)


def rotated(scheme: Scheme, q_C: Tensor, k_C: Tensor, pos_P: Tensor) -> tuple[Tensor, Tensor]:
    """The same query and key at every position, float64 [P, C] each."""
    q_11PC, k_11PC = (x_C.expand(1, 1, len(pos_P), -1) for x_C in (q_C, k_C))
    q_11PC, k_11PC = scheme.rotate(q_11PC, k_11PC, pos_P[None])
    return q_11PC[0, 0].double(), k_11PC[0, 0].double()


def logits(scheme: Scheme, q_C: Tensor, k_C: Tensor, pos_P: Tensor) -> Tensor:
    q_PC, k_PC = rotated(scheme, q_C, k_C, pos_P)
    return q_PC @ k_PC.T


def exact_logit(q_C: Tensor, k_C: Tensor, distance: int, zeta_I: Tensor | float = 1.0, base: float = 10000.0) -> float:
    """sum_i zeta_i^(distance / 512) Re(q_i conj(k_i) e^(i distance theta_i)), in float64; no position in it."""
    I = len(q_C) // 2
    q_I, k_I = (torch.complex(x_C[:I].double(), x_C[I:].double()) for x_C in (q_C, k_C))
    theta_I = base ** (-torch.arange(I, dtype=torch.float64) / I)
    decay_I = torch.as_tensor(zeta_I, dtype=torch.float64) ** (distance / 512)
    return float((decay_I * (q_I * k_I.conj() * torch.exp(1j * theta_I * distance)).real).sum())


@pytest.mark.parametrize("name", ["rope", "xpos"])
def test_a_logit_is_a_function_of_distance_alone(name: str) -> None:
    q_C, k_C = drawn(16)
    scheme = build_scheme(name, one_head(len(q_C)))
    I = len(q_C) // 2
    zeta_I = (torch.arange(I, dtype=torch.float64) / I + 0.4) / 1.4 if name == "xpos" else 1.0
    for begin, tolerance in ((0, 1e-3), (4000, 2e-3), (100_000, 2e-2)):
        pos_P = begin + POSITIONS
        got_PP = logits(scheme, q_C, k_C, pos_P)
        for query in range(len(pos_P)):
            for key in range(query + 1):
                wanted = exact_logit(q_C, k_C, int(pos_P[query] - pos_P[key]), zeta_I)
                assert got_PP[query, key] == pytest.approx(wanted, abs=tolerance)


def test_xpos_decay_matches_the_anchors() -> None:
    assert xpos_decay(8, 0.4).tolist() == pytest.approx([0.285714, 0.464286, 0.642857, 0.821429], abs=1e-6)


def test_xpos_logits_do_not_depend_on_the_centre() -> None:
    q_C, k_C = drawn(8)
    scheme = build_scheme("xpos", one_head(len(q_C)))
    short_PP = logits(scheme, q_C, k_C, torch.tensor([0, 5, 9]))
    long_PP = logits(scheme, q_C, k_C, torch.tensor([0, 5, 9, 6000]))
    torch.testing.assert_close(short_PP, long_PP[:3, :3], rtol=1e-5, atol=1e-5)


def test_xpos_decays_by_zeta_in_scale_base_tokens() -> None:
    """And RoPE does not: with base 1e30 all but the first pair stand still."""
    only_last_C = torch.zeros(8)
    only_last_C[3] = 1.0
    options = {"base": 1e30, "fraction": 1.0, "gamma": 0.4}
    for scale_base in (64.0, 512.0):
        pos_P = torch.tensor([0, int(scale_base)])
        decayed = logits(XPos(one_head(8), scale_base=scale_base, **options), only_last_C, only_last_C, pos_P)
        assert float(decayed[1, 0]) == pytest.approx(0.821429, abs=1e-6)
        assert float(decayed[1, 1]) == pytest.approx(1.0, abs=1e-6)


def test_rotary_frequencies_are_spaced_over_the_rotated_channels() -> None:
    expected = [1.0, 0.1, 0.01, 0.001]
    assert rotary_frequencies(8, 10000.0).tolist() == pytest.approx(expected)
    quarter = build_scheme("rope", one_head(32), fraction=0.25)
    assert quarter.angles(torch.tensor([[1]]))[0, 0].tolist() == pytest.approx(expected)


def test_alibi_slopes_match_the_anchors() -> None:
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(6) == [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    assert alibi_slopes(12)[8:] == pytest.approx([0.70711, 0.35355, 0.17678, 0.08839], abs=1e-5)
    assert alibi_slopes(16)[0] == pytest.approx(math.sqrt(0.5))


def test_alibi_weighs_keys_as_press_does() -> None:
    """All logits zero: weights are softmax(slope * key position), the form of the authors' code."""
    T = 7
    scheme = Alibi(Dims(d_model=2 * T, n_head=2, n_layer=1, train_length=4))
    zeros_BHTC, v_BHTC = torch.zeros(1, 2, T, T), torch.eye(T).expand(1, 2, T, T)
    got_HTT = attention(scheme, zeros_BHTC, zeros_BHTC, v_BHTC, torch.arange(T)[None], torch.zeros(1, T, 2 * T))[0]
    for head, slope in enumerate((0.0625, 0.00390625)):
        for t in range(T):
            wanted = torch.softmax(slope * torch.arange(t + 1), dim=0)
            torch.testing.assert_close(got_HTT[head, t, : t + 1], wanted)


def test_the_sinusoids_match_the_paper_s_formula() -> None:
    scheme = Sinusoidal(one_head(4), base=10000.0)
    added_BTD = scheme.embed(torch.full((1, 3, 4), 5.0), torch.tensor([[0, 1, 2]])) - 5
    wanted = [
        [0.0, 1.0, 0.0, 1.0],
        [0.841471, 0.540302, 0.0099998, 0.99995],
        [0.909297, -0.416147, 0.0199987, 0.9998],
    ]
    torch.testing.assert_close(added_BTD[0], torch.tensor(wanted), rtol=0, atol=1e-6)


def test_the_printed_table_of_eight_channels() -> None:
    """Pairs turn by 1, 0.1, 0.01 and 0.001 radians per position. A much-copied table has 0.3129 for sin 0.1."""
    printed = [
        [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0],
        [0.8415, 0.5403, 0.0998, 0.9950, 0.0100, 1.0000, 0.0010, 1.0000],
        [0.9093, -0.4161, 0.1987, 0.9801, 0.0200, 0.9998, 0.0020, 1.0000],
        [0.1411, -0.9900, 0.2955, 0.9553, 0.0300, 0.9996, 0.0030, 1.0000],
    ]
    got_PD = Sinusoidal(one_head(8), base=10000.0).encode(torch.arange(4)[None])[0]
    torch.testing.assert_close(got_PD, torch.tensor(printed), rtol=0, atol=6e-5)


@pytest.mark.parametrize("offset", [1, 7, 64, 1000])
def test_sinusoids_a_fixed_offset_apart_are_a_turn_of_each_pair(offset: int) -> None:
    """PE(p + k) is a linear function of PE(p) (section 3.5): one rotation for each pair, whatever p is."""
    D, pos_P = 16, torch.tensor([0, 1, 5, 100, 2048])
    scheme = Sinusoidal(one_head(D), base=10000.0)
    here_PI2, there_PI2 = (
        scheme.encode(at_P[None], torch.float64)[0].unflatten(-1, (-1, 2)) for at_P in (pos_P, pos_P + offset)
    )
    angle_I = offset * 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    cos_I, sin_I = angle_I.cos(), angle_I.sin()
    turn_I22 = torch.stack((cos_I, sin_I, -sin_I, cos_I), dim=-1).unflatten(-1, (2, 2))
    torch.testing.assert_close(torch.einsum("iab,pib->pia", turn_I22, here_PI2), there_PI2, rtol=0, atol=1e-9)


def test_far_sinusoids_are_exact_to_float32() -> None:
    D, pos_P = 64, torch.tensor([4095, 16_383, 100_000])
    scheme = Sinusoidal(one_head(D), base=10000.0)
    angle_PI = pos_P[:, None].double() * 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    wanted_PD = torch.stack((angle_PI.sin(), angle_PI.cos()), dim=-1).flatten(-2)
    got_PD = scheme.encode(pos_P[None])[0]
    error_P = (got_PD - wanted_PD).abs().amax(dim=1)
    assert bool((error_P < 2 * pos_P * 2**-24).all())  # half a unit in the last place of the angle, twice


def learned(past_end: str, entries: int = 4) -> Learned:
    scheme = build_scheme("learned", Dims(d_model=2, n_head=1, n_layer=1, train_length=entries), past_end=past_end)
    assert isinstance(scheme, Learned)
    with torch.no_grad():
        scheme.table_PD.copy_(torch.tensor([[0.0, 0.0], [1.0, 10.0], [2.0, 40.0], [3.0, 90.0]]) * EMBEDDING_STD)
    return scheme


@pytest.mark.parametrize(
    ("past_end", "T", "wanted"),
    [
        ("error", 4, [0, 10, 40, 90]),
        ("clamp", 6, [0, 10, 40, 90, 90, 90]),
        ("interpolate", 3, [0, 10, 40]),
        ("interpolate", 4, [0, 10, 40, 90]),
        ("interpolate", 7, [0, 5, 10, 25, 40, 65, 90]),
    ],
)
def test_a_learned_table_is_read_as_its_option_says(past_end: str, T: int, wanted: list[float]) -> None:
    """Row p of the table, at the token embeddings' scale, is added to token p (GPT-2)."""
    scheme = learned(past_end)
    added_TD = scheme.embed(torch.zeros(1, T, 2), torch.arange(T)[None])[0]
    assert added_TD[:, 1].tolist() == pytest.approx(wanted)


def test_a_learned_table_does_not_answer_past_its_end() -> None:
    with pytest.raises(Misuse, match="3"):
        learned("error").embed(torch.zeros(1, 5, 2), torch.arange(5)[None])
