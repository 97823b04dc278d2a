"""From token losses to numbers with an interval. Sums are float64; perplexity is exp of the token mean."""

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean in nats per token, with its interval and the two-sided p of its being 0, over seeds and documents.

    `low`, `high`, `error` (its standard error) and `p` are None where neither seeds nor documents are two.
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
    """Mean loss in nats per token, its perplexity, bits per UTF-8 byte, and the perplexity's 95 % interval."""

    nll: float
    ppl: float
    bits_per_byte: float | None
    ci_low: float | None
    ci_high: float | None


def summarize(
    loss_N: np.ndarray, document_N: np.ndarray, bytes_: float | None, weight_N: np.ndarray | None = None
) -> Summary:
    """Of the losses of targets in documents `document_N`, which stand for `bytes_` bytes of text together; `weight_N`
    is how much each counts in the mean, left out: the same.

    The interval is a bootstrap over documents, since tokens of one document are not independent: None for
    fewer than two documents.
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
    """Percentile interval of exp(sum/count) over documents drawn with replacement; the same draws every time."""
    documents = len(sum_D)
    if documents < 2:
        return None, None
    draws = np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    nll_R = (draws @ sum_D) / (draws @ count_D)
    low, high = np.quantile(nll_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return exp(low), exp(high)


def exp(nll: float) -> float:
    return float(np.exp(min(nll, 700.0)))  # e^700 is the largest power that a float can hold, about
