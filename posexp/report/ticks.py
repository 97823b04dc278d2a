"""The axes of a panel: ranges, ticks and tick labels."""

import math
from collections.abc import Iterable

from posexp.output.ticks import both_sides, log_ticks, tick_text, y_ticks
from posexp.report.metric import Metric
from posexp.report.tables import Table

DENSE = 16  # more lengths than this are drawn without markers, and only some are labelled


def y_range(table: Table, banded: Iterable[tuple[str, int]]) -> tuple[float, float]:
    """Return axis limits around all values and bands, and the linear part or whole range of the metric."""
    measure = table.measure
    numbers: list[float | None] = [value.value for value in table.values.values()]
    numbers += [bound for key in banded for bound in (table.values[key].low, table.values[key].high)]
    found = [level for level in map(measure.level, numbers) if not math.isnan(level)]
    if not found:
        return 0.0, 1.0
    found += map(measure.level, measure.whole or ((-measure.linear, measure.linear) if measure.linear else ()))
    air = max(0.06 * (max(found) - min(found)), 0.01)
    return min(found) - air, max(found) + air


def ticks_of(measure: Metric, least: float, most: float, count: int) -> list[float]:
    """Return up to `count` ticks for the axis of a metric."""
    if measure.log:
        return log_ticks(least, most, count)
    if measure.linear and max(abs(least), abs(most)) > measure.linear:
        return both_sides(least, most, measure.linear)
    return y_ticks(least, most, count)


def x_ticks(table: Table, inches: float, em: float) -> list[int]:
    """Return the lengths to label on the axis without overlap. Training lengths and powers of two have priority.

    `inches` is the width of an octave, and `em` is the font size in inches.
    """
    wanted = table.lengths
    if len(wanted) > DENSE:
        low, high = max(min(wanted), 1), max(wanted)
        wanted = tuple(2**e for e in range(32) if low <= 2**e <= high) or (low, high)
    first = sorted(
        {*wanted, *table.train_lengths}, key=lambda n: (n not in table.train_lengths, n < 1 or n & (n - 1) != 0, n)
    )
    kept: list[int] = []
    for length in first:
        room = (abs(math.log2(max(length, 0.5) / max(other, 0.5))) * inches for other in kept)
        sizes = ((len(str(length)) + len(str(other))) / 2 * 0.64 * em + 0.08 for other in kept)
        if all(gap >= need for gap, need in zip(room, sizes, strict=True)):
            kept.append(length)
    return sorted(kept)


def tick_labels(ticks: list[float], measure: Metric) -> list[str]:
    """Format the ticks, with equal decimals on a linear axis and with signs for changes."""
    if measure.linear:
        return [("−" if tick < 0 else "+" if tick > 0 else "") + tick_text(abs(tick)) for tick in ticks]
    if measure.log:
        return [tick_text(tick) for tick in ticks]
    decimals = max((len(tick_text(tick).partition(".")[2]) for tick in ticks), default=0)
    return [f"{tick:,.{decimals}f}" for tick in ticks]
