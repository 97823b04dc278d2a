"""Panels of tables: values by length, one line per curve.

Curves without a value at a length have a row in a strip above the panel, with a × there and the reason beside it.
Sizes are in inches.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from posexp.evaluation.verdicts import TOO_FEW
from posexp.output.figure import (
    LARGEST,
    MAX_NAME,
    NOTE,
    ROW,
    TITLE,
    name_ends,
    new_figure,
    set_log_scale,
    size_of,
    write_heading,
)
from posexp.output.style import REFERENCE, STRIP, Look
from posexp.output.text import one_line
from posexp.report.metric import CHANGE, Value
from posexp.report.tables import Table, facts, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

MAX_PANELS = 4
BANDED = 8  # maximum number of curves in a panel with bands, as more bands would overlap
DENSE = 16  # more lengths than this are drawn without markers, and only powers of two are labelled
PLOT, HIGH, AROUND = 6.2, 3.6, 1.3  # of a panel, and the space for titles and axes above and below it


def draw_curves(shown: list[Table], look_of: dict[str, Look]) -> "Figure":
    """Draw the first MAX_PANELS tables, one below the other."""
    drawn_here = shown[:MAX_PANELS]
    heights = [height_of(table) for table in drawn_here]
    figure = new_figure(PLOT + room_for_names(drawn_here), sum(heights))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, table in zip(parts, drawn_here, strict=True):
        draw_table(part, table, look_of)
        write_heading(part, table.title, notes(table), TITLE if table is shown[0] else 0.8 * TITLE)
    if more := len(shown) - len(drawn_here):
        figure.supxlabel(f"{more} more in table.md and rows.csv", size=NOTE)
    return figure


def room_for_names(shown: list[Table]) -> float:
    """Return the width of the longest name at the right of a panel."""
    return 0.7 + 0.08 * min(MAX_NAME, max(len(one_line(end_name(table, c))) for table in shown for c in table.curves))


def height_of(table: Table) -> float:
    return AROUND + max(HIGH, ROW * (len(table.curves) + len(failing(table)) + 2))


def draw_table(part: "FigureBase", table: Table, look_of: dict[str, Look], lowest: float | None = None) -> "Axes":
    """Draw one table with the names of its curves, with room down to the value `lowest`. Return its panel."""
    failed = failing(table)
    axes: Axes
    if failed:
        high = height_of(table) - AROUND - ROW * len(failed)
        strip, axes = part.subplots(2, 1, sharex=True, height_ratios=[ROW * len(failed), high])
    else:
        axes = part.subplots()
    for length in table.train_lengths:
        axes.axvline(length, **REFERENCE)
    if table.measure == CHANGE:
        draw_margin(axes)
    for curve in table.curves:
        draw_curve(axes, table, curve, look_of[curve])
    if lowest is not None:
        axes.update_datalim([(min(table.lengths), lowest)])
    set_scales(axes, table)
    if failed:
        draw_failures(strip, table, failed, look_of)
    axes.set_xlabel(table.axis)
    axes.set_ylabel(table.measure.label)
    ends = {}
    for curve in table.curves:
        lengths = [length for length in table.lengths if (curve, length) in table.values]
        if lengths and not ended(table, curve):
            ends[curve] = (lengths[-1], drawn(table.values[curve, lengths[-1]].value))
    name_ends(axes, ends, look_of)
    return axes


def draw_margin(axes: "Axes", along: str = "y") -> None:
    """Mark the changes within 1 % and no change on the axis `along`."""
    span, line = (axes.axhspan, axes.axhline) if along == "y" else (axes.axvspan, axes.axvline)
    span(-1, 1, color=STRIP, zorder=0.3)
    line(0, **REFERENCE | {"linestyle": "-", "zorder": 1.4})


def set_scales(axes: "Axes", table: Table) -> None:
    from matplotlib.ticker import FixedLocator

    lengths = sorted({*table.lengths, *table.train_lengths})
    # the context of a first target is 0, which has no logarithm
    set_log_scale(axes, "x", base=2, linear=None if min(lengths) > 0 else 1)
    if len(lengths) <= DENSE:
        powers = [length for length in lengths if length & (length - 1) == 0]
        axes.xaxis.set_major_locator(FixedLocator(powers if len(lengths) > 8 and powers else lengths))
    axes.xaxis.set_major_formatter("{x:.0f}")
    measure = table.measure
    levels = [level for value in table.values.values() if math.isfinite(level := drawn(value.value))]
    if measure.log and levels:  # equal values have air around them too
        axes.update_datalim([(lengths[0], min(levels) / 1.03), (lengths[0], max(levels) * 1.03)])
    if measure.log:
        set_log_scale(axes, "y")
    elif measure.linear:
        set_log_scale(axes, "y", linear=measure.linear, sign="+")
    elif measure.whole:
        axes.set_ylim(measure.whole[0] - 6, measure.whole[1] + 6)


def drawn(value: float | None) -> float:
    """Return the value as it is drawn: NaN if there is none, and never beyond what an axis can show."""
    if value is None or not math.isfinite(value):
        return math.nan
    return max(-LARGEST, min(value, LARGEST))


def draw_curve(axes: "Axes", table: Table, curve: str, look: Look) -> None:
    """Draw a curve with gaps at missing values, its intervals, and markers filled as `fill_of` says."""
    lengths = [length for length in table.lengths if (curve, length) in table.cells]
    known = {n: drawn(table.values[curve, n].value) for n in lengths if (curve, n) in table.values}
    if not known:
        return
    lows, highs = zip(*(bounds_of(table, curve, length) for length in lengths), strict=True)
    if not all(map(math.isnan, lows)):
        axes.fill_between(lengths, lows, highs, color=look.colour, alpha=0.2, linewidth=0, zorder=2)
    for i, length in enumerate(lengths):  # a point without neighbours has no band, so its interval is a line
        alone = all(map(math.isnan, lows[max(i - 1, 0) : i] + lows[i + 1 : i + 2]))
        if alone and not math.isnan(lows[i]):
            axes.vlines(length, lows[i], highs[i], color=look.colour, alpha=0.35, linewidth=4, zorder=2)
    line: dict[str, Any] = {"color": look.colour, "zorder": 3}
    ys = [known.get(length, math.nan) for length in lengths]
    axes.plot(lengths, ys, linestyle=look.dash, linewidth=2, **line)
    if len(lengths) > DENSE:
        return
    words = {n: table.words.get((curve, n), "") for n in known}
    for fill in dict.fromkeys(map(kind_of, words.values())):
        points = {n: y for n, y in known.items() if kind_of(words[n]) == fill}
        marks = {"markersize": size_of(look.marker), **line, **fill_of(fill, look.colour)}
        axes.plot([*points], [*points.values()], look.marker, **marks)


def kind_of(word: str) -> str:
    """Return the word of a verdict if its marker is not filled, "" for all others."""
    return word if word in ("unclear", TOO_FEW) else ""


def fill_of(word: str, colour: str) -> dict[str, Any]:
    """Return the fill of the marker of a verdict: half filled if unclear, hollow with too few seeds, else filled."""
    if word == "unclear":
        half = {"fillstyle": "left", "markerfacecolor": colour, "markerfacecoloralt": "white"}
        return half | {"markeredgecolor": colour, "markeredgewidth": 1.2}
    if word == TOO_FEW:
        return {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 1.4}
    return {"markerfacecolor": colour, "markeredgecolor": "white", "markeredgewidth": 0.9}


def draw_points(
    axes: "Axes", points: dict[float, Value], marker: str, colour: str, word: str = "", label: str = ""
) -> None:
    """Draw values by row, with their intervals as lines."""
    bounded = [(y, one.low, one.high) for y, one in points.items() if one.low is not None and one.high is not None]
    if bounded:
        ys, lows, highs = zip(*bounded, strict=True)
        axes.hlines(ys, [drawn(low) for low in lows], [drawn(high) for high in highs], color=colour, linewidth=1.4)
    values = [drawn(one.value) for one in points.values()]
    marks = {"markersize": size_of(marker) - 1, "zorder": 3, **fill_of(word, colour)}
    axes.plot(values, [*points], marker, label=label, **marks)


def bounds_of(table: Table, curve: str, length: int) -> tuple[float, float]:
    """Return the bounds of the band at a point. The band of a change starts with width 0 at the training length."""
    if table.measure == CHANGE and length == min(table.trained[curve]) and (curve, length) in table.values:
        return 0.0, 0.0
    value = table.values.get((curve, length))
    return (drawn(value.low), drawn(value.high)) if value and banded(table, curve, length) else (math.nan, math.nan)


def banded(table: Table, curve: str, length: int) -> bool:
    """Return whether a point has a band. Levels have none over documents, whose variation all curves share."""
    value = table.values.get((curve, length))
    if value is None or value.low is None or len(table.curves) > BANDED:
        return False
    return table.measure == CHANGE or table.measure.whole is not None or table.cells[curve, length].spread


def failing(table: Table) -> list[str]:
    """Return the curves that lack a value at some length."""
    return sorted({curve for (curve, _), cell in table.cells.items() if cell.failures})


def ended(table: Table, curve: str) -> bool:
    """Return whether a curve has no value at the longest length because of a failure."""
    last = table.cells.get((curve, max(table.lengths)))
    return last is not None and last.nll is None


def end_name(table: Table, curve: str) -> str:
    """Return the name of a curve with the reasons for its missing values."""
    cells = [table.cells.get((curve, length)) for length in table.lengths]
    reasons = "; ".join(dict.fromkeys(cell.failure for cell in cells if cell and cell.failures))
    return f"{curve}: {reasons}" if reasons else curve


def draw_failures(strip: "Axes", table: Table, failed: list[str], look_of: dict[str, Look]) -> None:
    """Draw one row for each curve that lacks values: a × at each length, and name and reasons at the right."""
    strip.set_facecolor(STRIP)
    strip.set_ylim(len(failed) - 0.5, -0.5)
    strip.tick_params(length=0, labelbottom=False, labelleft=False)
    strip.spines[:].set_visible(False)
    strip.grid(visible=False, axis="y")
    for row, curve in enumerate(failed):
        xs = [n for n in table.lengths if (cell := table.cells.get((curve, n))) and cell.failures]
        strip.plot(xs, [row] * len(xs), "x", color=look_of[curve].colour, markersize=7, markeredgewidth=2)
    last = max(table.lengths)
    ends = {curve: (last, row) for row, curve in enumerate(failed)}
    name_ends(strip, ends, look_of, {curve: end_name(table, curve) for curve in failed})


def notes(table: Table) -> list[str]:
    """Return the facts of a table and the legend of its marks."""
    parts = [f"dashed: trained at {listed(table.train_lengths)}", facts(table)]
    bounded = [key for key in table.values if banded(table, *key)]
    kinds = {table.cells[key].spread and table.measure != CHANGE for key in bounded}
    bands = ["range of the seeds"] * (True in kinds) + [f"95 % over {table.measure.over}"] * (False in kinds)
    parts += [f"band: {' or '.join(bands)}"] if bands else []
    parts += ["grey: within 1 %"] if table.measure == CHANGE else []
    return [" · ".join([*parts, *fills(table.words.values())])]


def fills(words: Iterable[str]) -> list[str]:
    """Return the legend of the markers that are not filled."""
    known = set(words)
    return ["half filled: unclear"] * ("unclear" in known) + [f"hollow: {TOO_FEW}"] * (TOO_FEW in known)
