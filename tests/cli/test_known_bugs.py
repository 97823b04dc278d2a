"""Bugs that other people's code has had, each seeded here: posexp's own schemes pass what the seeded copy fails.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, C channels of a head, D width of the
residual stream, N distances, I rotated pairs of channels.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from support import contract
from support.command import TINY, Answer, here, run_of, world
from support.contract import Make
from torch import Tensor, nn

from posexp import transforms
from posexp.check import authors
from posexp.check.measure import MAX_POSITION, bias_type, finite_reach, memory
from posexp.check.probe import DIMS
from posexp.check.verdict import examine
from posexp.config.components import options_of, read_options
from posexp.config.sections import config_dir
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme, from_config
from posexp.schemes.alibi import Alibi, alibi_slopes
from posexp.schemes.none import NoPositions
from posexp.schemes.rope import Rope, rotary_frequencies, rotate_pairs
from posexp.schemes.xpos import XPos, xpos_decay
from posexp.windows import Window


def own(name: str) -> Make:
    return lambda dims: build_scheme(name, dims)


def seeded(rotary: type[Rope]) -> Make:
    """With the options of posexp's own scheme of that kind."""
    options = {"base": 10000.0, "fraction": 1.0}
    if issubclass(rotary, XPos):
        options |= {"gamma": 0.4, "scale_base": 512.0}
    return lambda dims: rotary(dims, **options)


def broken(make: Make, *lengths: int) -> list[str]:
    """The promises that `posexp check` says are not kept."""
    return list(examine("", make, list(lengths)).broken)


def breaks(check: Callable[[Make], None], make: Make) -> bool:
    try:
        check(make)
    except AssertionError:
        return True
    return False


# Scores of one head's worth of random queries and keys, as a full forward gives them and as a cache would.
Scores = Callable[[Scheme, Tensor, Tensor, Tensor], Tensor]


def random_tokens(T: int) -> tuple[Tensor, Tensor, Tensor]:
    q_BHTC, k_BHTC = torch.randn(2, 1, DIMS.n_head, T, DIMS.head_dim, generator=torch.Generator().manual_seed(0))
    return q_BHTC, k_BHTC, torch.arange(T)[None]


def at_once(scheme: Scheme, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> Tensor:
    q_BHTC, k_BHTC = scheme.rotate(q_BHTC, k_BHTC, pos_BT)
    return (q_BHTC @ k_BHTC.transpose(-1, -2))[:, :, -1]


def token_by_token(scheme: Scheme, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> Tensor:
    """Each query is turned alone, beside all keys so far."""
    steps = [at_once(scheme, q_BHTC[:, :, :t], k_BHTC[:, :, :t], pos_BT[:, :t]) for t in range(1, pos_BT.shape[1] + 1)]
    return steps[-1]


def with_kept_keys(scheme: Scheme, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> Tensor:
    """The bug: keys are turned when they come and kept so, whatever the scheme knew of the input by then."""
    kept = []
    for t in range(1, pos_BT.shape[1] + 1):
        turned_q, turned_k = scheme.rotate(q_BHTC[:, :, :t], k_BHTC[:, :, :t], pos_BT[:, :t])
        kept.append(turned_k[:, :, -1])
    return (turned_q[:, :, -1:] @ torch.stack(kept, dim=2).transpose(-1, -2))[:, :, 0]


def off(compute: Scores, scheme: Scheme, T: int = 200) -> float:
    """How far the last query's scores are from those of a full forward."""
    tokens = random_tokens(T)
    return float((compute(scheme, *tokens) - at_once(scheme, *tokens)).abs().max())


class HalfPositions(Rope):
    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        return super().rotate(q_BHTC, k_BHTC, pos_BT.type_as(q_BHTC))


def test_b1_positions_are_never_rounded_to_bfloat16() -> None:
    """gpt-neox#1003, transformers#25681, rotary-embedding-torch."""
    assert broken(own("rope"), 2048) == []
    assert {"exact", "relative"} <= set(broken(seeded(HalfPositions), 2048))
    assert breaks(contract.positions_are_float32_under_autocast, seeded(HalfPositions))
    assert len(torch.arange(1024).bfloat16().unique()) == 513  # what the bug leaves of 1024 positions


class KeptAngles(Rope):
    """Cosines and sines kept from the first call, in its type."""

    def angles(self, pos_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        if not hasattr(self, "kept") or self.kept.shape[1] < pos_BT.shape[1]:
            self.kept = super().angles(pos_BT, dtype).to(kind)
        return self.kept[:, : pos_BT.shape[1]].float()


def test_b2_a_bfloat16_call_leaves_nothing_behind() -> None:
    """rotary-embedding-torch, January 2026."""
    assert memory(own("rope")) == 0
    assert memory(seeded(KeptAngles)) > 0.001
    assert breaks(contract.nothing_is_kept_between_calls, seeded(KeptAngles))


class TwoCentres(Rope):
    """Queries centred, keys not."""

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        angle_BTI, decay_I = self.angles(pos_BT), xpos_decay(self.rotary_dim, 0.4)
        centre = pos_BT.amax(-1, keepdim=True)[..., None] // 2
        q_scale_BTI = decay_I ** ((pos_BT[..., None] - centre) / 64)
        k_scale_BTI = decay_I ** (-pos_BT[..., None] / 64)
        return rotate_pairs(q_BHTC, angle_BTI, q_scale_BTI), rotate_pairs(k_BHTC, angle_BTI, k_scale_BTI)


def test_b3_xpos_has_one_centre_for_queries_and_keys() -> None:
    """rotary-embedding-torch#27, with cached keys."""
    for name in ("rope", "xpos"):
        assert off(token_by_token, build_scheme(name, DIMS)) < 1e-4
    assert off(with_kept_keys, build_scheme("rope", DIMS)) < 1e-4
    assert off(with_kept_keys, build_scheme("xpos", DIMS)) > 0.1
    assert broken(own("xpos"), 512) == []
    assert "prefix-stable" in broken(seeded(TwoCentres), 512)
    assert breaks(contract.short_and_long_inputs_agree, seeded(TwoCentres))


class PositionsAsLength(XPos):
    """Decays by the number of tokens, where it is given their positions."""

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        angle_BTI = self.angles(pos_BT)
        index_1T1 = torch.arange(pos_BT.shape[1], dtype=torch.float32)[None, :, None]
        scale_1TI = xpos_decay(self.rotary_dim, self.gamma) ** (index_1T1 / self.scale_base)
        return rotate_pairs(q_BHTC, angle_BTI, scale_1TI), rotate_pairs(k_BHTC, angle_BTI, 1 / scale_1TI)


class LengthAsPositions(XPos):
    """Calls for the number of tokens and is given positions, which ends in a crash."""

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        return super().rotate(q_BHTC, k_BHTC, torch.arange(pos_BT)[None])


def test_b4_xpos_goes_by_positions_and_not_by_the_number_of_tokens() -> None:
    """x-transformers#226, #233. The last query's scores with every 50th key are the same without the keys between."""

    def thinned(scheme: Scheme) -> float:
        q_BHTC, k_BHTC, pos_BT = random_tokens(501)
        rest = slice(0, None, 50)
        alone = at_once(scheme, q_BHTC[:, :, rest], k_BHTC[:, :, rest], pos_BT[:, rest])
        return float((alone - at_once(scheme, q_BHTC, k_BHTC, pos_BT)[..., rest]).abs().max())

    assert thinned(build_scheme("xpos", DIMS)) < 1e-4
    assert thinned(seeded(PositionsAsLength)(DIMS)) > 0.1
    report = examine("", seeded(LengthAsPositions), [128])
    assert report.broken["raises"].startswith("TypeError: ")


class WithoutCentre(XPos):
    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        angle_BTI = self.angles(pos_BT)
        scale_BTI = xpos_decay(self.rotary_dim, self.gamma) ** (pos_BT[..., None].float() / self.scale_base)
        return rotate_pairs(q_BHTC, angle_BTI, scale_BTI), rotate_pairs(k_BHTC, angle_BTI, 1 / scale_BTI)


def test_b5_xpos_keys_stay_finite_as_long_as_float32_allows() -> None:
    """rotary-embedding-torch#8: not a number in the keys."""
    fast = {"base": 10000.0, "fraction": 1.0, "gamma": 0.4, "scale_base": 16.0}  # overflows 32 times sooner
    assert broken(lambda dims: XPos(dims, **fast), 2048) == []
    assert {"exact", "relative"} <= set(broken(lambda dims: WithoutCentre(dims, **fast), 2048))
    centred, uncentred = (finite_reach(make, torch.float32) for make in (own("xpos"), seeded(WithoutCentre)))
    assert centred is not None and uncentred is not None
    assert centred == pytest.approx(2 * uncentred, rel=0.02)


class RoundedKeyColumn(Scheme):
    """ALiBi as slope * key position, in bfloat16."""

    relative = True

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor:
        slope_H = torch.tensor(alibi_slopes(self.dims.n_head))
        column_BHK = (slope_H[:, None] * pos_BK[:, None]).bfloat16().float()
        return column_BHK[:, :, None].expand(-1, -1, pos_BQ.shape[1], -1)


def test_b6_alibi_is_exact_for_the_nearest_keys_of_a_long_input() -> None:
    """fairseq, BLOOM, Falcon: m * key position in half precision is off by whole logits where ALiBi looks most."""
    slope_H = torch.tensor(alibi_slopes(8))

    def nearest(bias_HK: Tensor, T: int) -> float:
        wanted_HK = -slope_H[:, None] * torch.arange(63, -1, -1)
        relative_HK = bias_HK[:, -64:] - bias_HK[:, -1:]
        return float((relative_HK - wanted_HK).abs().max())

    for T, error in ((1024, 1.5), (4096, 4.5), (16384, 16)):
        column_HK = (slope_H[:, None] * torch.arange(T)).bfloat16().float()
        own_HK = build_scheme("alibi", Dims(64, 8, 1, 64)).distance_bias(torch.arange(T).flip(0))
        assert own_HK is not None and nearest(own_HK, T) == 0
        assert nearest(column_HK, T) >= error
    assert broken(own("alibi"), 1024) == []
    assert "relative" in broken(lambda dims: RoundedKeyColumn(dims), 1024)
    assert breaks(contract.shifting_all_positions, lambda dims: RoundedKeyColumn(dims))


class RoundedDistance(Scheme):
    relative = True

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        return -torch.tensor(alibi_slopes(self.dims.n_head))[:, None].bfloat16() * gap_N.bfloat16()


def test_b7_distances_are_never_rounded_before_the_bias() -> None:
    """gpt-neox, KERPLE, DAPE: far distances become equal."""
    for name in ("alibi", "kerple_log", "fire"):
        assert bias_type(own(name)) == torch.float32
        assert broken(own(name), 1024) == []
    assert broken(lambda dims: RoundedDistance(dims), 1024) == ["bias in float32"]
    assert breaks(contract.positions_are_float32_under_autocast, lambda dims: RoundedDistance(dims))


class SecretTable(NoPositions):
    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return x_BTD + pos_BT[..., None] / 10


class TableUnderAlibi(Alibi):
    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.table_PD = nn.Parameter(torch.randn(dims.train_length, dims.d_model))

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return x_BTD + self.table_PD[pos_BT]


def test_b8_no_scheme_has_an_absolute_table_that_nobody_asked_for() -> None:
    """x-transformers#70: ALiBi with a learned table, which ends at the training length."""

    def parameters(make: Make) -> int:
        return contract.decoder(make).parameter_counts()["scheme"]

    assert parameters(own("alibi")) == parameters(own("none")) == 0
    assert parameters(lambda dims: TableUnderAlibi(dims)) > 0
    assert broken(own("none"), 128) == broken(own("alibi"), 128) == []
    assert broken(lambda dims: SecretTable(dims), 128) == ["relative", "reads no positions"]
    assert broken(lambda dims: TableUnderAlibi(dims), 128) == ["raises"]


class CountsWithinBlocks(Scheme):
    """Distances between places in what is passed, without the offset of the queries."""

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor:
        gap_QK = torch.arange(pos_BQ.shape[1])[:, None] - torch.arange(pos_BK.shape[1])
        return -gap_QK.abs().float().expand(1, self.dims.n_head, -1, -1) / 8


def test_b9_a_bias_is_the_same_for_queries_alone_and_among_others() -> None:
    """x-transformers#242, vLLM PR 945, ggml PR 143: bias without the offset of cached keys."""
    for name in ("alibi", "t5", "fire"):
        assert not breaks(contract.query_blocks_change_nothing, own(name))
    assert breaks(contract.query_blocks_change_nothing, lambda dims: CountsWithinBlocks(dims))


def test_b10_all_keys_have_the_frequencies_of_the_whole_input() -> None:
    """transformers#25104, mlx-lm: cached keys keep the base of when they came."""
    transform = transforms.build_transform("dynamic_ntk", DIMS)
    scheme, _ = transform.apply(build_scheme("rope", DIMS), Window(DIMS), 200)
    assert off(token_by_token, scheme) < 1e-4
    assert off(with_kept_keys, scheme) > 0.1
    assert off(with_kept_keys, scheme, T=DIMS.train_length) < 1e-4  # where the base has not changed yet


class AnglesFromATable(Rope):
    def angles(self, pos_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        if pos_BT.shape[1] > self.dims.train_length:
            raise IndexError("longer than the table")
        return super().angles(pos_BT, dtype)


def test_b11_rotary_positions_have_no_end() -> None:
    """gpt-neox asserts that an input is no longer than its table."""
    assert broken(own("rope"), 8192) == []
    assert finite_reach(own("rope"), torch.float32) == MAX_POSITION
    report = examine("", seeded(AnglesFromATable), [8192])
    assert report.broken == {"raises": "IndexError: longer than the table"}
    with pytest.raises(IndexError):
        contract.it_says_how_long_it_reaches(seeded(AnglesFromATable))


class QuarterWhateverIsAsked(Rope):
    def __init__(self, dims: Dims, base: float, fraction: float):
        super().__init__(dims, base, fraction)
        self.rotary_dim = dims.head_dim // 4


def test_b12_rotary_positions_turn_the_channels_that_were_asked_for() -> None:
    """McGill's rotary baseline turns a quarter, whatever its config says."""
    dims = Dims(d_model=128, n_head=4, n_layer=1, train_length=64)
    for fraction, channels in ((1.0, 32), (0.5, 16), (0.25, 8)):
        named = f"rotary_dim={channels} of 32"
        assert named in build_scheme("rope", dims, fraction=fraction).fingerprint()
        assert (named in QuarterWhateverIsAsked(dims, 10000.0, fraction).fingerprint()) is (fraction == 0.25)
    case = next(case for case in authors.cases("rope") if case.options["fraction"] == 1.0)
    assert authors.worst(case, build_scheme("rope", case.dims, **case.options)) < case.tolerance
    assert authors.worst(case, QuarterWhateverIsAsked(case.dims, 10000.0, 1.0)) > 0.1


def test_b13_a_run_says_which_scheme_was_really_built(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """BiPE's train.sh sets a config's name and passes another; DAPE's README names one file for two schemes."""

    def as_asked(read: Callable[[str], dict], folder: Path) -> bool:
        """What the run recorded is what its config describes."""
        asked = read_options(folder / "config.yaml")["scheme"]
        dims = Dims(d_model=32, n_head=2, n_layer=1, train_length=16)
        built = from_config(read(asked["_target_"].split(".")[-2]), dims)
        recorded = json.loads((folder / "provenance.json").read_text())["scheme"]
        return built.fingerprint() == recorded

    finished = world(tmp_path_factory, tmp_path)
    runs = [run_of(finished, label) for label in ("rope", "learned")]
    assert all(as_asked(lambda name: options_of("scheme", name, {}), run) for run in runs)
    always_rope = partial(read_options, config_dir() / "scheme" / "rope.yaml")
    assert [as_asked(lambda name: always_rope(), run) for run in runs] == [True, False]


def test_b14_false_is_false_on_the_command_line(tmp_path: Path) -> None:
    """bob80333: argparse's type=bool reads every word as true."""

    def shown(value: str) -> Answer:
        return here("train", "+scheme=rope", *TINY, f"data.cross_documents={value}", "--cfg", "job", cwd=tmp_path)

    for value, read in (("False", "false"), ("false", "false"), ("True", "true"), ("true", "true")):
        assert f"cross_documents: {read}" in shown(value).out
    assert "cross_documents" in shown("maybe").refusal()
    with pytest.raises(Misuse, match="at_evaluation"):
        build_scheme("randomized", DIMS, at_evaluation="maybe")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cross-documents", type=bool)
    assert parser.parse_args(["--cross-documents", "False"]).cross_documents is True  # the bug


class InterleavedFrequencies(Rope):
    """Frequencies of the interleaved layout on half-split channels."""

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        theta_C = rotary_frequencies(self.rotary_dim, self.base).repeat_interleave(2)
        angle_B1TC = (pos_BT.float()[..., None] * theta_C)[:, None]

        def turn(x_BHTC: Tensor) -> Tensor:
            a_BHTI, b_BHTI = x_BHTC.float().chunk(2, dim=-1)
            turned = x_BHTC * angle_B1TC.cos() + torch.cat((-b_BHTI, a_BHTI), dim=-1) * angle_B1TC.sin()
            return turned.type_as(x_BHTC)

        return turn(q_BHTC), turn(k_BHTC)


@pytest.mark.slow
def test_b15_channels_that_turn_together_turn_at_one_frequency() -> None:
    """LLMs-from-scratch PR 747: rotate_half with interleaved frequencies."""
    for layout in ("half", "interleaved"):
        assert broken(lambda dims, layout=layout: build_scheme("rope", dims, layout=layout), 1024) == []
    assert "relative" in broken(seeded(InterleavedFrequencies), 1024)
    assert breaks(contract.shifting_all_positions, seeded(InterleavedFrequencies))
