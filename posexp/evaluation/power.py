"""The power of a t test over seeds and documents."""

import math

from posexp.evaluation.statistics import ALPHA, satterthwaite

MOST_SEEDS = 10_000  # the end of the search for seeds_needed


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
