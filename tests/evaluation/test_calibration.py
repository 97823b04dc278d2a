"""Do intervals cover what they say, alone and pooled? On simulated losses whose true difference is 0.

docs/statistics.md has the table of `test_the_page_has_the_measured_coverages`.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from posexp.evaluation.multiplicity import holm, joint
from posexp.evaluation.statistics import Estimate, estimate, estimates, p_floor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
WORLDS, CURVES = 150, (1, 6, 28)
CONDITIONS = [
    (seeds, documents, ratio, effects, variances)
    for seeds, documents in ((3, 8), (3, 12), (5, 12))
    for ratio in (3, 1)
    for effects in ("normal", "log-normal")
    for variances in ("equal", "unequal")
]
Condition = tuple[int, int, int, str, str]
Sample = tuple[np.ndarray, np.ndarray]


def drawn(draw: np.random.Generator, effects: str, *shape: int) -> np.ndarray:
    """Effects of mean 0 and standard deviation 1, normal or log-normal with sigma = 1."""
    normal = draw.standard_normal(shape)
    return normal if effects == "normal" else (np.exp(normal) - math.exp(0.5)) / math.sqrt(math.e * (math.e - 1))


def world(draw: np.random.Generator, condition: Condition, curves: int) -> list[Sample]:
    """Samples of curves at one length, whose mean has an error of 1 from documents, `ratio` from seeds, and 0.5 from
    both together.

    Normal curves are differences from one base, whose seeds they share. Unequal: the variances between seeds differ by
    a factor of up to 4.
    """
    seeds, documents, ratio, effects, variances = condition
    seed_KS = drawn(draw, effects, curves, seeds)
    if effects == "normal":
        seed_KS = (seed_KS - draw.standard_normal(seeds)) / math.sqrt(2)
    if variances == "unequal":
        seed_KS = seed_KS * 2 ** draw.uniform(-0.5, 0.5, (curves, 1))
    mean_KSD = ratio * math.sqrt(seeds) * seed_KS[:, :, None]
    mean_KSD = mean_KSD + math.sqrt(documents) * drawn(draw, effects, curves, 1, documents)
    mean_KSD = mean_KSD + 0.5 * math.sqrt(seeds * documents) * draw.standard_normal((curves, seeds, documents))
    return [(mean_SD, np.ones(documents)) for mean_SD in mean_KSD]


def measured(condition: Condition, curves: int, worlds: int) -> tuple[float, float, float, float]:
    """The coverage of all intervals and of the narrowest quarter, how often p is below its floor, in floors, and how
    often Holm's p over the curves is below 0.05."""
    draw = np.random.default_rng(0)
    found: list[Estimate] = []
    false = 0
    for _ in range(max(1, worlds // curves)):
        of_world = estimates(world(draw, condition, curves))
        false += min(p for p in holm([one.p for one in of_world]) if p is not None) < 0.05
        found += of_world
    covers_N = np.array([one.low <= 0 <= one.high for one in found])  # type: ignore[operator]
    width_N = np.array([one.high - one.low for one in found])  # type: ignore[operator]
    floor_N = np.array([p_floor(1 + one.seeds_df) for one in found])
    below = float(np.mean(np.array([one.p for one in found]) < floor_N) / floor_N.mean())
    narrow_N = width_N <= np.quantile(width_N, 0.25)
    return float(covers_N.mean()), float(covers_N[narrow_N].mean()), below, false * curves / worlds


@pytest.mark.parametrize("variances", ["equal", "unequal"])
def test_pooled_intervals_cover_where_single_ones_fall_short(variances: str) -> None:
    """Three seeds that differ by three times what documents do."""
    condition = (3, 12, 3, "normal", variances)
    alone, narrow_alone, _, _ = measured(condition, 1, 1000)
    together, narrow, below, false = measured(condition, 28, 60 * 28)
    assert 0.9 < alone < 0.955 and narrow_alone < 0.8, "the narrowest of single ones are too narrow"
    assert 0.93 < together < 0.98 and narrow > 0.83 > narrow_alone + 0.05
    assert below < 1.8 and false < 0.12


def test_p_below_the_floor_of_two_curves_is_no_more_frequent_than_it_says() -> None:
    for seeds in (2, 3):
        condition = (seeds, 20, 3, "normal", "equal")
        assert measured(condition, 1, 2000)[2] < 1.5 + 4 * math.sqrt(1.5 / p_floor(seeds) / 2000)
    draw = np.random.default_rng(0)
    p_values = [estimate(*world(draw, (2, 20, 3, "normal", "equal"), 1)[0]).p for _ in range(2000)]
    assert np.mean(np.array(p_values) < 0.001) > 0.01, "what the floor is for"
    assert [p_floor(seeds) for seeds in (1, 2, 3, 4, 5, 8, 15)] == [0.1, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001]


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_page_has_the_measured_coverages(condition: Condition) -> None:
    line = line_of(condition)
    print(line)
    assert line in PAGE.read_text()


def line_of(condition: Condition) -> str:
    """The line of the page's table."""
    seeds, documents, ratio, effects, variances = condition
    found = [measured(condition, curves, WORLDS * 28) for curves in CURVES]
    columns = [" / ".join(f"{one[column]:.2f}" for one in found) for column in range(3)]
    false = " / ".join(f"{one[3]:.2f}" for one in found[1:])
    return f"| {seeds} × {documents} | {ratio}:1 | {effects} | {variances} | {' | '.join(columns)} | {false} |"


def at_lengths(draw: np.random.Generator, lengths: int, correlation: float, effect: float = 0.0) -> list[Sample]:
    """Samples of one curve at several lengths, with the same seeds and documents."""
    worlds = [world(draw, (5, 12, 1, "normal", "equal"), lengths)[0][0] for _ in range(2 * lengths)]
    own, common = np.stack(worlds[:lengths]), worlds[-1]
    mixed = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own + effect
    return [(mean_SD, np.ones(12)) for mean_SD in mixed]


def test_joint_p_holds_for_unrelated_and_for_equal_lengths_alike() -> None:
    """Five lengths without a difference: at most 5 % of curves have one below 0.05, with binomial noise."""
    draw, rounds = np.random.default_rng(0), 100
    for correlation in (0.0, 0.9, 0.999):
        false, stricter, costs = 0, 0, []
        for _ in range(rounds):
            samples = at_lengths(draw, 5, correlation)
            found = [estimate(*sample) for sample in samples]
            raw = [one.p for one in found if one.p is not None]
            adjusted = joint(found, samples)
            false += min(adjusted) < 0.05
            stricter += any(p > of_holm + 1e-12 for p, of_holm in zip(adjusted, holm(raw), strict=True))  # type: ignore
            assert all(p >= of_one for p, of_one in zip(adjusted, raw, strict=True))
            costs.append(min(adjusted) / min(raw))
        assert false / rounds < 0.05 + 4 * math.sqrt(0.05 * 0.95 / rounds) and stricter == 0
        assert np.median(costs) < 1.1 if correlation == 0.999 else np.median(costs) > 1.3


def test_joint_p_finds_more_than_holm_where_lengths_agree() -> None:
    draw = np.random.default_rng(0)
    ours = theirs = 0
    for _ in range(100):
        samples = at_lengths(draw, 5, 0.99, effect=4.0)
        found = [estimate(*sample) for sample in samples]
        ours += sum(p < 0.05 for p in joint(found, samples))
        theirs += sum(p < 0.05 for p in holm([one.p for one in found]) if p is not None)
    assert ours > 1.15 * theirs > 0


def test_joint_p_of_one_length_is_its_own_and_of_equal_ones_too() -> None:
    sample = world(np.random.default_rng(0), (3, 8, 1, "normal", "equal"), 1)[0]
    one = estimate(*sample)
    assert joint([one], [sample]) == [one.p] and joint([], []) == []
    assert joint([one, one, one], [sample] * 3) == pytest.approx([one.p] * 3, rel=0.1)


def test_pooling_keeps_values_and_what_cannot_be_pooled() -> None:
    samples = world(np.random.default_rng(0), (3, 8, 3, "normal", "unequal"), 6)
    pooled, single = estimates(samples), [estimate(*sample) for sample in samples]
    assert [one.value for one in pooled] == [one.value for one in single]
    errors = [np.log([one.error for one in found]).std() for found in (pooled, single)]  # type: ignore[misc]
    assert errors[0] < errors[1] and all(2 < one.seeds_df <= 5 for one in pooled)
    assert estimates(samples[:2]) == single[:2] and estimates([]) == []
    equal = (np.zeros((3, 8)), np.ones(8))
    one_seed = (samples[0][0][:1], np.ones(8))
    assert estimates([*samples[:2], equal, one_seed]) == [*single[:2], estimate(*equal), estimate(*one_seed)]
    assert estimates([*samples, equal])[-1] == estimate(*equal) and estimates([*samples, equal])[:-1] == pooled


def test_the_prior_is_that_of_the_moments_of_logarithms() -> None:
    """Variances drawn around 2 with 6 degrees of freedom: many curves of many seeds give both back."""
    from posexp.evaluation.statistics import Spread, pooled

    draw = np.random.default_rng(0)
    true_K = 2 * 6 / draw.chisquare(6, 20_000)
    found = pooled([Spread(0.0, v * draw.chisquare(4) / 4, 0.0, 0.0, 4.0, 0.0) for v in true_K])
    tiny, huge = (min(found, key=lambda one: one.seeds), max(found, key=lambda one: one.seeds))
    assert tiny.seeds_df == pytest.approx(10, rel=0.05) and tiny.seeds == pytest.approx(6 * 2 / 10, rel=0.1)
    assert huge.seeds < max(true_K) * 3
