"""Intervals cover what they say, p-values are level, and powers come true: on simulated losses with known means."""

import math

import numpy as np
import pytest
from scipy import stats

from posexp.compare.seeds import MOST_SEEDS, detectable, seeds_needed
from posexp.evaluation.multiplicity import holm
from posexp.evaluation.statistics import Estimate, estimate, spread

SIMULATIONS = 1500


def simulated(
    draw: np.random.Generator, seeds: int, documents: int, sds: tuple[float, float, float], unequal: float
) -> tuple[np.ndarray, np.ndarray]:
    """(sum_SD, count_D) of losses of true mean 0: `sds` of what seeds, documents and both together contribute to the
    mean; `unequal` is the spread of the logarithm of document sizes."""
    count_D = np.ceil(200 * np.exp(draw.normal(0, unequal, documents)))
    of_seeds, of_documents, of_both = sds
    mean_SD = draw.normal(0, of_seeds * math.sqrt(seeds), (seeds, 1)) if seeds > 1 else np.zeros((1, 1))
    mean_SD = mean_SD + draw.normal(0, of_documents * math.sqrt(documents), documents)
    mean_SD = mean_SD + draw.normal(0, of_both * math.sqrt(seeds * documents), (seeds, documents))
    return mean_SD * count_D, count_D


def estimates(seeds: int, documents: int, sds: tuple[float, float, float], unequal: float) -> list[Estimate]:
    draw = np.random.default_rng(0)
    return [estimate(*simulated(draw, seeds, documents, sds, unequal)) for _ in range(SIMULATIONS)]


@pytest.mark.parametrize("unequal", [0.0, 0.8])
@pytest.mark.parametrize("sds", [(1, 1, 0.5), (0.3, 1, 0.3), (1, 0.3, 0.3)])
@pytest.mark.parametrize(("seeds", "documents"), [(1, 8), (1, 20), (3, 8), (3, 20), (5, 40)])
def test_intervals_cover_the_true_mean_and_p_is_below_5_percent_as_often_as_they_do_not(
    seeds: int, documents: int, sds: tuple[float, float, float], unequal: float
) -> None:
    """Of 1500 intervals that cover at 95 %, 92.75 to 97.25 % do with four standard deviations of binomial noise; the
    upper bound is wider, because the interaction is bounded from below by 0 and so adds to an interval on average."""
    found = estimates(seeds, documents, sds, unequal)
    covering = np.mean([one.low <= 0 <= one.high for one in found])  # type: ignore[operator]
    assert 0.9275 <= covering <= 0.985
    assert np.mean([one.p < 0.05 for one in found]) == pytest.approx(1 - covering, abs=1e-9)  # type: ignore[operator]


@pytest.mark.slow
def test_p_is_uniform_where_there_is_no_difference() -> None:
    p_values = [one.p for one in estimates(1, 20, (0, 1, 0), 0)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    for threshold in (0.05, 0.2, 0.5):
        noise = 4 * math.sqrt(threshold * (1 - threshold) / SIMULATIONS)
        for parts in [(1, 1, 0.5), (0.3, 1, 0.3)]:
            rate = np.mean([one.p < threshold for one in estimates(5, 40, parts, 0)])  # type: ignore[operator]
            assert threshold - 2 * noise <= rate <= threshold + noise


def test_where_only_the_interaction_varies_intervals_are_wide_and_never_narrow() -> None:
    covering = np.mean([one.low <= 0 <= one.high for one in estimates(3, 20, (0, 0, 1), 0)])  # type: ignore[operator]
    assert covering >= 0.95


def test_a_percentile_bootstrap_would_not_cover_with_three_seeds() -> None:
    """What the t interval is for: three seeds of means alone, resampled, hold the true mean in three of four cases."""
    draw = np.random.default_rng(0)
    mean_RS = draw.normal(size=(SIMULATIONS, 3))
    resampled = mean_RS[:, draw.integers(0, 3, (400, 3))].mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.85
    ours = [estimate(mean_S[:, None], np.ones(1)) for mean_S in mean_RS]
    assert 0.93 < np.mean([one.low <= 0 <= one.high for one in ours]) < 0.97  # type: ignore[operator]


def test_one_seed_is_the_t_test_over_documents_and_one_document_that_over_seeds() -> None:
    values = np.array([0.3, 0.1, -0.2, 0.6, 0.4])
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval()
    for found in (estimate(10 * values[None], np.full(5, 10)), estimate(10 * values[:, None], np.full(1, 10))):
        assert found.value == pytest.approx(0.24)
        assert (found.low, found.high, found.p) == (pytest.approx(low), pytest.approx(high), pytest.approx(test.pvalue))
        assert found.error == pytest.approx(stats.sem(values))
    assert (estimate(values[None], np.ones(5)).seeds, estimate(values[None], np.ones(5)).documents) == (1, 5)


def test_variances_of_a_crossed_table_are_those_of_its_analysis() -> None:
    """Two seeds, three documents, by hand: seed means 1 and 3, document means 1, 2 and 3, no interaction."""
    sum_SD = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    parts = spread(sum_SD, np.ones(3))
    assert parts.value == pytest.approx(2)
    assert (parts.seeds, parts.documents) == (pytest.approx(2 / 2), pytest.approx(1 / 3))
    assert parts.both == pytest.approx(0) and parts.documents_alone == pytest.approx(1 / 3)
    assert (parts.seeds_df, parts.documents_df) == (1, pytest.approx(2))
    found = estimate(sum_SD, np.ones(3))
    assert found.error == pytest.approx(math.sqrt(1 + 1 / 3))
    df = (4 / 3) ** 2 / (1 + 1 / 9 / 2)
    half = stats.t.ppf(0.975, df) * math.sqrt(4 / 3)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(2 / math.sqrt(4 / 3), df))


def test_an_interaction_counts_once() -> None:
    draw = np.random.default_rng(0)
    parts = [spread(draw.normal(size=(3, 8)), np.ones(8)) for _ in range(SIMULATIONS)]
    for name in ("seeds", "documents", "both"):
        assert np.mean([getattr(one, name) for one in parts]) == pytest.approx(1 / 24, rel=0.1)


def test_the_mean_is_over_tokens_and_not_over_documents() -> None:
    found = estimate(np.array([[10.0, 90.0]]), np.array([10.0, 30.0]))
    assert found.value == pytest.approx(100 / 40)
    same = estimate(np.array([[10.0, 90.0]]), np.array([[10.0, 30.0]]))
    assert same == found


def test_a_large_document_among_small_ones_leaves_few_degrees_of_freedom() -> None:
    sizes = np.array([1000.0, 10, 10, 10, 10, 10])
    assert spread(sizes[None] * 0.1, sizes).documents_df == pytest.approx(1050**2 / (1000**2 + 500) - 1)
    assert spread(np.ones((1, 6)), np.ones(6)).documents_df == pytest.approx(5)


def test_nothing_to_resample_gives_no_interval_and_no_spread_gives_none_around_the_value() -> None:
    alone = estimate(np.array([[3.0]]), np.array([2.0]))
    assert (alone.value, alone.low, alone.high, alone.error, alone.p) == (1.5, None, None, None, None)
    equal = estimate(np.zeros((3, 4)), np.ones(4))
    assert (equal.low, equal.high, equal.error, equal.p) == (0, 0, 0, 1)
    constant = estimate(np.full((2, 4), 0.5), np.ones(4))
    assert (constant.low, constant.high, constant.p) == (0.5, 0.5, 0)


def test_the_same_losses_give_the_same_estimate() -> None:
    table = simulated(np.random.default_rng(1), 3, 8, (1, 1, 1), 0.5)
    assert estimate(*table) == estimate(*table)


def test_holm_steps_down_and_leaves_out_what_has_no_p() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, None]) == [1.0, 1.0, None]
    assert holm([0.03]) == [0.03] and holm([]) == [] and holm([None]) == [None]


def test_holm_bounds_the_chance_of_any_false_finding() -> None:
    """Five true nulls, five real effects: without correction 23 % have a false finding, with it at most 5 %."""
    draw = np.random.default_rng(0)
    false = raw = found = 0
    for _ in range(SIMULATIONS):
        p_values = 2 * stats.norm.sf(np.abs(np.concatenate((draw.normal(size=5), draw.normal(4, 1, 5)))))
        adjusted = holm(list(p_values))
        raw += bool((p_values[:5] < 0.05).any())
        false += any(p is not None and p < 0.05 for p in adjusted[:5])
        found += sum(p is not None and p < 0.05 for p in adjusted[5:])
    noise = 4 * math.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert raw / SIMULATIONS > 0.15 and false / SIMULATIONS < 0.05 + noise
    assert found / (5 * SIMULATIONS) > 0.8


@pytest.mark.parametrize(("sd", "difference"), [(0.01, 0.01), (0.02, 0.01), (0.01, 0.04)])
def test_the_seeds_needed_find_the_difference_in_four_of_five_cases_and_one_less_does_not(
    sd: float, difference: float
) -> None:
    seeds = seeds_needed(sd, difference)
    assert seeds is not None

    def power(n: int) -> float:
        noncentrality = difference / sd * math.sqrt(n)
        return float(stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, noncentrality))

    assert power(seeds) >= 0.8 and (seeds == 2 or power(seeds - 1) < 0.8)
    draw = np.random.default_rng(0)
    values = draw.normal(difference, sd, (SIMULATIONS, seeds))
    simulated_power = np.mean([estimate(row[:, None], np.ones(1)).p < 0.05 for row in values])  # type: ignore[operator]
    assert simulated_power == pytest.approx(power(seeds), abs=4 * math.sqrt(0.16 / SIMULATIONS))


def test_with_documents_that_vary_the_seeds_needed_still_find_the_difference() -> None:
    """The whole way: 0.03 nats between seeds, 40 documents that add 0.006, tested as posexp compare does."""
    sd, documents, of_documents, difference = 0.03, 40, 0.006, 0.025
    seeds = seeds_needed(sd, difference, documents=of_documents, documents_df=documents - 1)
    alone = seeds_needed(sd, difference)
    assert seeds is not None and alone is not None and seeds > alone
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(SIMULATIONS):
        mean_SD = difference + draw.normal(0, sd, (seeds, 1))
        mean_SD = mean_SD + draw.normal(0, of_documents * math.sqrt(documents), documents)
        p = estimate(mean_SD, np.ones(documents)).p
        hits += p is not None and p < 0.05
    assert hits / SIMULATIONS == pytest.approx(0.82, abs=0.05)


def test_documents_that_hide_a_difference_are_not_outdone_by_seeds() -> None:
    assert seeds_needed(0.001, 0.01, documents=0.01, documents_df=7) is None
    assert detectable(0.001, math.inf, documents=0.01, documents_df=7) > 0.01
    assert detectable(0.02, math.inf) == 0 and seeds_needed(0.02, 0.0) is None
    assert seeds_needed(10.0, 0.001) is None and detectable(10.0, MOST_SEEDS) > 0.001
    assert seeds_needed(0.0, 0.01) == 2


def test_the_detectable_difference_is_that_of_the_non_central_t() -> None:
    for seeds, wanted in ((2, 0.8), (3, 0.8), (5, 0.9), (30, 0.5)):
        nats = detectable(0.02, seeds, power=wanted)
        critical = stats.t.ppf(0.975, seeds - 1)
        assert stats.nct.sf(critical, seeds - 1, nats / 0.02 * math.sqrt(seeds)) == pytest.approx(wanted, abs=1e-6)
