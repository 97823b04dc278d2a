"""The cell of a table: the values of one curve at one length over its seeds, and the failures."""

import math
from dataclasses import dataclass, field

from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Cell:
    """The perplexity of one curve at one length over its seeds, and the statuses of seeds without a value.

    `low` and `high` are the lowest and highest seed (`spread`), the 95 % interval of a single seed, or None.
    """

    seeds: int
    nll: float | None  # nats per token, mean over the seeds that have a value
    ppl: float | None
    low: float | None
    high: float | None
    spread: bool
    failures: tuple[str, ...]  # statuses of the seeds without a value, in order of seed
    bits_per_byte: float | None = None  # means over the seeds that have a value
    accuracy: float | None = None
    accuracy_bounds: tuple[float, float] | tuple[None, None] = (None, None)  # lowest and highest seed
    exact_match: float | None = None
    exact_match_bounds: tuple[float, float] | None = None  # like low and high
    by_seed: dict[int, float] = field(default_factory=dict)  # losses in nats per token
    change: Estimate | None = None  # of the loss against the curve's own training length, on the same targets

    @property
    def failure(self) -> str:
        """The reason for missing seeds, such as "", "undefined" or "2/3 ok, non-finite"."""
        kinds = ", ".join(dict.fromkeys(status.split(":")[0] for status in self.failures))
        measured = self.seeds - len(self.failures)
        return f"{measured}/{self.seeds} ok, {kinds}" if measured and kinds else kinds


def cell_of(rows: list[Row]) -> Cell:
    """Return the cell of one curve at one length. `rows` has one row per seed."""
    rows = sorted(rows, key=lambda row: (row.seed, row.run))
    good = [row for row in rows if row.outcome == "ok"]
    failures = tuple(row.outcome for row in rows if row.outcome != "ok")
    if not good:
        return Cell(len(rows), None, None, None, None, False, failures)
    nll = math.fsum(row.loss for row in good) / len(good)
    ppls = [math.exp(row.loss) for row in good]
    low, high = (min(ppls), max(ppls)) if len(good) > 1 else (good[0].ci_low, good[0].ci_high)
    if low is None or high is None or math.isnan(low + high):
        low = high = None
    return Cell(
        len(rows),
        nll,
        math.exp(nll),
        low,
        high,
        len(good) > 1,
        failures,
        bits_per_byte=mean_of([row.bits_per_byte for row in good]),
        accuracy=mean_of([row.accuracy for row in good]),
        accuracy_bounds=bounds_of([(row.accuracy, None) for row in good]) or (None, None),
        exact_match=mean_of([row.exact_match for row in good]),
        by_seed={row.seed: row.loss for row in good},
        exact_match_bounds=bounds_of([(row.exact_match, row.documents) for row in good]),
    )


def bounds_of(shares: list[tuple[float | None, int | None]]) -> tuple[float, float] | None:
    """Return the lowest and highest share over seeds, or for one seed the 95 % score interval (Wilson 1927).

    `shares` are (share, examples). None if one is unknown.
    """
    known = [(share, count) for share, count in shares if share is not None]
    if len(known) < len(shares):
        return None
    if len(known) > 1:
        return min(known)[0], max(known)[0]
    ((share, count),) = known
    if not count:
        return None
    z2 = 1.959964**2 / count
    middle, half = share + z2 / 2, math.sqrt(z2 * share * (1 - share) + z2**2 / 4)
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def mean_of(values: list[float | None]) -> float | None:
    """Return the mean of a column, or None if a row lacks it, so that all means are over the same seeds."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None
