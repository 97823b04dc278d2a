"""The power of a comparison: the difference that its seeds can detect, and the seeds that a difference needs."""

import math
from bisect import bisect_left
from dataclasses import dataclass

from posexp.compare.pairs import Key, Pair
from posexp.errors import Misuse
from posexp.evaluation.contrasts import differences
from posexp.evaluation.statistics import ALPHA, Spread, satterthwaite, spread

MOST_SEEDS = 10_000  # the end of the search for seeds_needed


@dataclass(frozen=True)
class Power:
    """The power at one length, in nats per token. Where numbers are None, `word` gives the reason.

    `sd` is the standard deviation of the paired difference between seeds. `documents_error` is the standard error from
    documents, which more seeds do not reduce. `detectable` is the smallest true difference that the present seeds
    detect, and `limit` the smallest that infinitely many seeds detect on these documents. `needed` and
    `needed_observed` are the seeds for the requested and for the observed difference, None if MOST_SEEDS are too few.
    """

    key: Key
    seeds: tuple[int, ...]
    documents: int
    word: str
    difference: float | None = None
    sd: float | None = None
    documents_error: float | None = None
    detectable: float | None = None
    limit: float | None = None
    needed: int | None = None
    needed_observed: int | None = None


def power_of(pair: Pair, difference: float, power: float) -> Power:
    """Return the power at the length of `pair`. Raises Misuse for a single seed, which has no spread."""
    if len(pair.seeds) < 2:
        raise Misuse(
            f"the spread between seeds needs two seeds of both: {pair.base} and {pair.other} have only "
            f"seed {pair.seeds[0]} in common (posexp train … seed=0,1,2 -m)"
        )
    if failures := pair.failures():
        return Power(pair.key, pair.seeds, 0, "; ".join(failures))
    try:
        sum_SD, count_D = differences(pair.rows())
    except Misuse as error:
        return Power(pair.key, pair.seeds, 0, str(error))
    parts = spread(sum_SD, count_D)
    return of_spread(pair, parts, len(count_D), difference, power)


def of_spread(pair: Pair, parts: Spread, documents: int, difference: float, power: float) -> Power:
    """Return the power that follows from a spread."""
    sd = math.sqrt(parts.seeds * len(pair.seeds))
    error = math.sqrt(parts.documents_alone)
    known = {"power": power, "documents": error, "documents_df": max(parts.documents_df, 1.0)}
    needed = seeds_needed(sd, difference, **known)
    limit = detectable(sd, math.inf, **known)
    return Power(
        pair.key,
        pair.seeds,
        documents,
        "more documents needed" if needed is None and limit > difference else "",
        parts.value,
        sd,
        error if documents > 1 else None,
        detectable(sd, len(pair.seeds), **known),
        limit if documents > 1 else None,
        needed,
        seeds_needed(sd, parts.value, **known),
    )


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


def seeds_needed(sd: float, difference: float, **known: float) -> int | None:
    """Return the fewest seeds, at least two, that make `difference` detectable; None if MOST_SEEDS are too few.

    `known` is passed to `detectable`.
    """

    def enough(seeds: int) -> bool:
        return detectable(sd, seeds, **known) <= abs(difference)

    if difference == 0 or not enough(MOST_SEEDS):
        return None
    return bisect_left(range(MOST_SEEDS), True, lo=2, key=enough)
