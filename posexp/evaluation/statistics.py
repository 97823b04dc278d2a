"""The statistics of token losses: means with intervals. Sums are float64; perplexity is exp of the token mean.

Shape suffixes: N targets, S seeds, D documents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
MOST_SEEDS = 10_000  # the end of the search for seeds_needed


@dataclass(frozen=True)
class Estimate:
    """A mean in nats per token over seeds and documents, with its interval and the two-sided p for a mean of 0.

    `low`, `high`, `error` (the standard error) and `p` are None with one seed and one document.
    """

    value: float
    low: float | None
    high: float | None
    error: float | None
    p: float | None
    seeds: int
    documents: int


@dataclass(frozen=True)
class Summary:
    """The mean loss in nats per token, its perplexity, bits per UTF-8 byte, and the perplexity's 95 % interval."""

    nll: float
    ppl: float
    bits_per_byte: float | None
    ci_low: float | None
    ci_high: float | None


def summarize(
    loss_N: np.ndarray, document_N: np.ndarray, bytes_: float | None, weight_N: np.ndarray | None = None
) -> Summary:
    """Summarise the losses of targets in documents `document_N`, which encode `bytes_` bytes of text.

    `weight_N` are weights in the mean, equal by default. The interval is a bootstrap over documents, because tokens of
    one document are not independent; it is None for fewer than two documents.
    """
    _, index_N = np.unique(document_N, return_inverse=True)
    weight_N = np.ones(len(loss_N)) if weight_N is None else weight_N
    sum_D = np.bincount(index_N, weights=loss_N.astype(np.float64) * weight_N)
    count_D = np.bincount(index_N, weights=weight_N)
    nll = float(sum_D.sum() / count_D.sum())
    low, high = bootstrap(sum_D, count_D)
    bits = nll / math.log(2) * len(loss_N) / bytes_ if bytes_ else None
    return Summary(nll, exp(nll), bits, low, high)


def bootstrap(sum_D: np.ndarray, count_D: np.ndarray) -> tuple[float | None, float | None]:
    """Return the percentile interval of exp(sum/count) over documents drawn with replacement from a fixed seed."""
    documents = len(sum_D)
    if documents < 2:
        return None, None
    draws = np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    nll_R = (draws @ sum_D) / (draws @ count_D)
    low, high = np.quantile(nll_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return exp(low), exp(high)


def exp(nll: float) -> float:
    return float(np.exp(min(nll, 700.0)))  # exp(710) overflows


@dataclass(frozen=True)
class Spread:
    """A mean in nats per token, and the variances of its error.

    `seeds` and `documents` are the variances from seeds and from documents. Each includes the interaction of the two,
    which is `both`. A factor with one level has variance 0 and 0 degrees of freedom.
    """

    value: float
    seeds: float
    documents: float
    both: float
    seeds_df: float
    documents_df: float

    @property
    def documents_alone(self) -> float:
        """The variance that remains with infinitely many seeds."""
        return max(self.documents - self.both, 0.0)


def spread(sum_SD: np.ndarray, count_SD: np.ndarray) -> Spread:
    """Return the spread of losses, or of differences, with sums `sum_SD` over `count_SD` (or count_D) tokens, never 0.

    Seeds and documents are crossed: every seed is scored on every document. Each variance is a delete-one jackknife
    (Efron and Stein 1981), which stays right where documents differ in size; for equal ones it is that of resampling
    with the correction n/(n-1) that a bootstrap lacks (Hesterberg 2015, arXiv 1411.5279). The degrees of freedom of
    documents come from their effective number, (sum n)² / sum n² for sizes n (Kish 1965).
    """
    sum_SD = np.asarray(sum_SD, dtype=np.float64)
    count_SD = np.broadcast_to(np.asarray(count_SD, dtype=np.float64), sum_SD.shape)
    seeds, documents = sum_SD.shape
    total = count_SD.sum()
    value = sum_SD.sum() / total
    rest_SD = (sum_SD - value * count_SD) / total  # the influence of each cell on the mean
    rest_S, rest_D = rest_SD.sum(axis=1), rest_SD.sum(axis=0)
    share_S, share_D = count_SD.sum(axis=1) / total, count_SD.sum(axis=0) / total
    by_seeds = by_documents = both = 0.0
    if seeds > 1:
        by_seeds = jackknife(rest_S / (1 - share_S), seeds)
    if documents > 1:
        by_documents = jackknife(rest_D / (1 - share_D), documents)
    if seeds > 1 and documents > 1:
        left_SD = rest_SD - np.outer(share_S, rest_D) - np.outer(rest_S, share_D)
        left_SD = left_SD / np.outer(1 - share_S, 1 - share_D)
        both = jackknife(left_SD, seeds) * (documents - 1) / documents
    return Spread(float(value), by_seeds, by_documents, both, seeds - 1.0, float(1 / (share_D**2).sum() - 1))


def jackknife(change: np.ndarray, levels: int) -> float:
    """Return the variance of a mean from its `change` without each of `levels` levels."""
    return float((levels - 1) / levels * (change**2).sum())


def estimate(sum_SD: np.ndarray, count_SD: np.ndarray) -> Estimate:
    """The token mean with its interval over seeds and documents; `sum_SD` and `count_SD` (or count_D) as in `spread`.

    Both are resampled in thought: the variance from seeds plus that from documents, less the interaction that is in
    both (Cameron, Gelbach and Miller 2011), never below either. This is what the pigeonhole bootstrap resamples (Owen
    2007, Annals of Applied Statistics 1), but in closed form, without its double count of the interaction, and with
    Student's t, whose degrees of freedom are Satterthwaite's (1946): three seeds have only ten resamples, and their
    percentiles are too narrow. Over documents only with one seed, and over seeds only with one document.

    In simulations 93 to 98 % of the intervals hold the true mean, for eight documents or more and one seed or at least
    three; 99 % where seeds and documents hardly do but interact, and 90 % with two seeds that differ by much more than
    documents do.
    """
    from scipy import special

    parts = spread(sum_SD, count_SD)
    seeds, documents = np.shape(sum_SD)
    variance = max(parts.seeds + parts.documents - parts.both, parts.seeds, parts.documents)
    if seeds < 2 and documents < 2:
        return Estimate(parts.value, None, None, None, None, seeds, documents)
    error = math.sqrt(variance)
    if error == 0:
        return Estimate(parts.value, parts.value, parts.value, 0.0, float(parts.value == 0), seeds, documents)
    df = satterthwaite(variance, (parts.seeds, parts.seeds_df), (parts.documents, parts.documents_df))
    half = float(special.stdtrit(df, 1 - ALPHA / 2)) * error
    p = 2 * float(special.stdtr(df, -abs(parts.value) / error))
    return Estimate(parts.value, parts.value - half, parts.value + half, error, p, seeds, documents)


def estimates(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Estimate]:
    """Return the estimate of each sample (sums [S, D], counts [D]) of comparable curves, in order."""
    return [estimate(sum_SD, count_D) for sum_SD, count_D in samples]


@dataclass(frozen=True)
class Ratio:
    """The ratio of two paired means, with its 95 % interval, None with one seed and one document."""

    value: float
    low: float | None
    high: float | None


def ratio(numerator_SD: np.ndarray, denominator_SD: np.ndarray, count_D: np.ndarray) -> Ratio:
    """Return the ratio of two means over the same seeds and documents, from their sums.

    The interval is that of the linearised ratio: the mean of numerator - ratio x denominator, over the denominator's.
    """
    value = float(numerator_SD.sum() / denominator_SD.sum())
    rest = estimate(numerator_SD - value * denominator_SD, count_D)
    if rest.low is None or rest.high is None:
        return Ratio(value, None, None)
    mean = float(denominator_SD.sum() / (len(denominator_SD) * count_D.sum()))
    half = (rest.high - rest.low) / 2 / abs(mean)
    return Ratio(value, value - half, value + half)


def satterthwaite(variance: float, *parts: tuple[float, float]) -> float:
    """Return the degrees of freedom of a sum of variances, from (variance, df) of each part; at least 1."""
    return max(1.0, variance**2 / sum(part**2 / max(df, 1.0) for part, df in parts if part > 0))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust each p so that 0.05 bounds the chance of any false finding among them (Holm 1979).

    None stays None and does not count.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for behind, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - behind)))
        adjusted[index] = largest
    return adjusted


def detectable(
    sd: float,
    seeds: float,
    power: float = 0.8,
    alpha: float = ALPHA,
    documents: float = 0.0,
    documents_df: float = math.inf,
) -> float:
    """Return the smallest true difference that a two-sided test at `alpha` finds with probability `power`.

    `sd` is the standard deviation of the paired difference between seeds, and `seeds` their number, which may be
    infinite. `documents` is the standard error from documents, `documents_df` its degrees of freedom. The computation
    uses the non-central t distribution and ignores findings in the wrong direction.
    """
    from scipy import special

    by_seeds = sd**2 / seeds
    variance = by_seeds + documents**2
    if variance == 0:
        return 0.0
    df = min(satterthwaite(variance, (by_seeds, seeds - 1), (documents**2, documents_df)), 1e6)  # practically normal
    critical = special.stdtrit(df, 1 - alpha / 2)
    return float(special.nctdtrinc(df, 1 - power, critical)) * math.sqrt(variance)


def seeds_needed(
    sd: float,
    difference: float,
    power: float = 0.8,
    alpha: float = ALPHA,
    documents: float = 0.0,
    documents_df: float = math.inf,
) -> int | None:
    """Return the fewest seeds, at least two, that make `difference` detectable; None if MOST_SEEDS are too few."""

    def enough(seeds: int) -> bool:
        return detectable(sd, seeds, power, alpha, documents, documents_df) <= abs(difference)

    if difference == 0 or not enough(MOST_SEEDS):
        return None
    few, many = 1, MOST_SEEDS  # the fewest lie in (few, many]
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many
