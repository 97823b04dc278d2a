"""Pictures of tables: values by length, with a large panel for the first table and a small one for each other.

Curves without a value at a length have a row in a strip above the panel, with a × there and the reason beside it.
Sizes are in inches.
"""

import math
from typing import TYPE_CHECKING, Any

from posexp.output.figure import (
    LARGEST,
    MAX_NAME,
    NOTE,
    ROW,
    TITLE,
    name_ends,
    new_figure,
    rendered,
    set_log_scale,
    size_of,
    write_heading,
)
from posexp.output.style import REFERENCE, STRIP, Look
from posexp.output.text import one_line
from posexp.report.metric import CHANGE
from posexp.report.tables import Table, facts, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

MAX_PANELS = 5
BANDED = 8  # maximum number of curves in a panel with bands, as more bands would overlap
DENSE = 16  # more lengths than this are drawn without markers, and only powers of two are labelled
PLOT, HIGH, AROUND = 6.6, 3.8, 1.5  # of the large panel, and the space for titles and axes above and below it


def curve_pictures(shown: list[Table], look_of: dict[str, Look]) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the tables. Equal tables give equal bytes."""
    return rendered(lambda: draw_curves(shown, look_of), shown[0].title)


def draw_curves(shown: list[Table], look_of: dict[str, Look]) -> "Figure":
    """Draw the first MAX_PANELS tables. The first one is the headline."""
    main, others = shown[0], shown[1:MAX_PANELS]
    pairs = [others[i : i + 2] for i in range(0, len(others), 2)]
    names = room_for_names(shown[:MAX_PANELS])
    heights = [height_of(main), *(max(0.7 * height_of(table) for table in pair) for pair in pairs)]
    figure = new_figure((PLOT + names) * (1.25 if len(others) > 1 else 1), sum(heights))
    rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_table(rows[0], main, look_of)
    for row, pair in zip(rows[1:], pairs, strict=True):
        for part, table in zip(row.subfigures(1, len(pair), squeeze=False)[0], pair, strict=True):
            draw_table(part, table, look_of, big=False)
    if more := len(shown) - 1 - len(others):
        figure.supxlabel(f"{more} more in table.md and rows.csv", size=NOTE)
    return figure


def room_for_names(shown: list[Table]) -> float:
    """Return the width of the longest name at the right of a panel."""
    return 0.9 + 0.085 * min(MAX_NAME, max(len(one_line(end_name(table, c))) for table in shown for c in table.curves))


def height_of(table: Table) -> float:
    return AROUND + max(HIGH, ROW * (len(table.curves) + len(failing(table)) + 2))


def draw_table(
    part: "FigureBase", table: Table, look_of: dict[str, Look], *, big: bool = True, title: str = "", named: bool = True
) -> None:
    """Draw one table under its title or `title`, with the names of its curves if `named`."""
    failed = failing(table)
    if failed:
        high = 0.5 * height_of(table)
        strip, axes = part.subplots(2, 1, sharex=True, height_ratios=[ROW * len(failed), high])
    else:
        axes = part.subplots()
    for length in table.train_lengths:
        axes.axvline(length, **REFERENCE)
    if table.measure == CHANGE:
        axes.axhspan(-1, 1, color=STRIP, zorder=0.3)
        axes.axhline(0, **REFERENCE | {"linestyle": "-", "zorder": 1.4})
    for curve in table.curves:
        draw_curve(axes, table, curve, look_of[curve], big)
    set_scales(axes, table)
    if failed:
        draw_failures(strip, table, failed, look_of, named)
    if not big:
        axes.tick_params(labelsize=NOTE)
    axes.set_xlabel(table.axis)
    axes.set_ylabel(table.measure.label)
    write_heading(part, title or table.title, notes(table) if named else [" "], TITLE if big else 0.8 * TITLE)
    ends = {}
    for curve in table.curves:
        lengths = [length for length in table.lengths if (curve, length) in table.values]
        if lengths and not ended(table, curve):
            ends[curve] = (lengths[-1], drawn(table.values[curve, lengths[-1]].value))
    if named:
        name_ends(axes, ends, look_of)


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


def draw_curve(axes: "Axes", table: Table, curve: str, look: Look, big: bool) -> None:
    """Draw a curve with gaps at missing values, its band, and hollow markers where the verdict is "breaks"."""
    lengths = [length for length in table.lengths if (curve, length) in table.cells]
    known = {length: table.values[curve, length].value for length in lengths if (curve, length) in table.values}
    if not known:
        return
    if len(table.curves) <= BANDED:
        lows, highs = zip(*(bounds_of(table, curve, length) for length in lengths), strict=True)
        if not all(map(math.isnan, lows)):
            axes.fill_between(lengths, lows, highs, color=look.colour, alpha=0.2, linewidth=0, zorder=2)
        for i, length in enumerate(lengths):  # a point without neighbours has no band, so its interval is a line
            alone = all(map(math.isnan, lows[max(i - 1, 0) : i] + lows[i + 1 : i + 2]))
            if alone and not math.isnan(lows[i]):
                axes.vlines(length, lows[i], highs[i], color=look.colour, alpha=0.35, linewidth=4, zorder=2)
    size = size_of(look.marker) * (1 if big else 0.8)
    line: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": 2.2 if big else 1.8, "zorder": 3}
    if len(lengths) <= DENSE:
        line |= {"marker": look.marker, "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.9}
    axes.plot(lengths, [drawn(known.get(length)) for length in lengths], **line)
    breaks = {n: drawn(value) for n, value in known.items() if table.words.get((curve, n)) == "breaks"}
    hollow: dict[str, Any] = {"markersize": size - 0.7, "markerfacecolor": "white", "markeredgecolor": look.colour}
    axes.plot(list(breaks), list(breaks.values()), look.marker, markeredgewidth=1.6, zorder=3.1, **hollow)


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


def draw_failures(strip: "Axes", table: Table, failed: list[str], look_of: dict[str, Look], named: bool) -> None:
    """Draw one row for each curve that lacks values: a × at each length, and name and reasons at the right."""
    strip.set_facecolor(STRIP)
    strip.set_ylim(len(failed) - 0.5, -0.5)
    strip.tick_params(length=0, labelbottom=False, labelleft=False)
    strip.spines[:].set_visible(False)
    strip.grid(visible=False, axis="y")
    for row, curve in enumerate(failed):
        xs = [n for n in table.lengths if (cell := table.cells.get((curve, n))) and cell.failures]
        strip.plot(xs, [row] * len(xs), "x", color=look_of[curve].colour, markersize=7, markeredgewidth=2)
    if named:
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
    parts += ["hollow: breaks"] if "breaks" in table.words.values() else []
    return [" · ".join(parts)]
