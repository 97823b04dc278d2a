"""The ranking picture: one row per curve, sorted by the value at the longest length. Sizes are in inches.

Dots are values. Lines above and below a row are the range of the seeds at its first and last length.
"""

import math
import statistics
from typing import TYPE_CHECKING, Any

from posexp.output.style import INK, QUIET, above, rendered, wrapped
from posexp.output.text import one_line
from posexp.report.tables import Table, facts, listed
from posexp.report.ticks import tick_labels, ticks_of
from posexp.report.verdict_table import lengths_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLLOWED = 12  # maximum number of curves that are readable as lines
MAX_DOTS = 6  # lengths in a row
BEYOND = 3.0  # times the median of all first dots; values beyond are written as text, to leave space for the others
SHADES = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")  # MAX_DOTS shades, in order of length
TRAINED = "#D55E00"
ROW, ABOVE, BELOW, NAMES, PLOT, NOTES = 0.26, 1.3, 0.65, 2.0, 5.4, 2.2


def pictures(table: Table) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the table. Equal tables give equal bytes."""
    return rendered(lambda: draw_ranking(table), table.title)


def draw_ranking(table: Table) -> "Figure":
    from matplotlib.figure import Figure

    curves, shown = ranked(table), dots(table)
    high = ROW * (len(curves) + 1)
    wide, height = NAMES + PLOT + NOTES, ABOVE + high + BELOW
    figure = Figure(figsize=(wide, height))
    axes = figure.add_axes((NAMES / wide, BELOW / height, PLOT / wide, high / height))
    low, edge = reach(table, shown)
    axes.set_xlim(low, edge)
    axes.set_ylim(len(curves), -1)
    axes.set_yticks(range(len(curves)), [one_line(curve) for curve in curves])
    axes.tick_params(axis="y", length=0)
    name_values(axes, table, low, edge)
    up_to = lengths_of(table.usable)
    if up_to:
        note(axes, -1, "usable length", 0.1, color=QUIET, size=9.5)
    for y, curve in enumerate(curves):
        draw_row(axes, table, curve, shown, y, edge)
        note(axes, y, up_to.get(curve, ""), 0.1, size=10)
        words = beyond(table, curve, shown, edge)
        note(axes, y, words, 0.75 if up_to else 0.1, size=9, color=QUIET)
    head(axes, table, shown)
    return figure


def ranked(table: Table) -> list[str]:
    """Return the curves, best value at the longest length first. Curves without a value there are last."""
    last = max(table.lengths)

    def order(curve: str) -> tuple[bool, float, str]:
        of_curve = [table.values[curve, n].value for n in table.lengths if (curve, n) in table.values]
        at_end = table.values.get((curve, last))
        value = at_end.value if at_end else of_curve[0] if of_curve else math.inf
        return at_end is None, -value if table.measure.high_is_good else value, curve

    return sorted(table.curves, key=order)


def dots(table: Table) -> list[int]:
    """Return the lengths to draw: from the training length on, at most MAX_DOTS, including the first and last."""
    known = [n for n in table.lengths if n >= min(table.train_lengths, default=0)] or list(table.lengths)
    if len(known) <= MAX_DOTS:
        return known
    return sorted({known[round(i * (len(known) - 1) / (MAX_DOTS - 1))] for i in range(MAX_DOTS)})


def reach(table: Table, shown: list[int]) -> tuple[float, float]:
    """Return the limits of the axis. Some values may lie beyond."""
    found = [key for key in table.values if key[1] in shown]
    numbers: list[float | None] = [table.values[key].value for key in found]
    numbers += [
        bound for key in found if table.cells[key].spread for bound in (table.values[key].low, table.values[key].high)
    ]
    levels = [level for number in numbers if not math.isnan(level := table.measure.level(number))] or [0.0, 1.0]
    firsts = [table.values[curve, shown[0]].value for curve in table.curves if (curve, shown[0]) in table.values]
    limit = table.measure.level(BEYOND * statistics.median(firsts)) if firsts and table.measure.log else math.inf
    near = [level for level in levels if level <= limit] or levels
    air = max(0.04 * (max(near) - min(near)), 0.005)
    return min(near) - air, max(near) + air


def draw_row(axes: "Axes", table: Table, curve: str, shown: list[int], y: int, edge: float) -> None:
    """Draw one row. Values beyond `edge` are not drawn; `beyond` returns them as text."""
    known = [length for length in shown if (curve, length) in table.values]
    levels = [table.measure.level(table.values[curve, length].value) for length in known]
    inside = [level for level in levels if level <= edge]
    if inside:
        ends = [min(levels), min(max(levels), edge)]
        axes.plot(ends, [y, y], color="#c8c8c8", linewidth=2.5, zorder=2, solid_capstyle="butt")
    look: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    for length, level in reversed(list(zip(known, levels, strict=True))):  # the training length is drawn on top
        colour = colour_of(table, shown, length)
        if level <= edge:
            axes.plot([level], [y], "o", color=colour, zorder=3, **look)
        if table.cells[curve, length].spread and length in (known[0], known[-1]):
            side = -0.24 if length == known[0] else 0.24
            value = table.values[curve, length]
            bounds = [min(table.measure.level(bound), edge) for bound in (value.low, value.high)]
            axes.plot(bounds, [y + side] * 2, color=colour, linewidth=1.2, zorder=2.5)


def beyond(table: Table, curve: str, shown: list[int], edge: float) -> str:
    """Return the reason for missing values, or the values beyond `edge`, at most the first and the last."""
    failed = [length for length in shown if (cell := table.cells.get((curve, length))) and cell.failures]
    if failed:
        return f"{table.cells[curve, failed[0]].failure} {'from' if len(failed) > 1 else 'at'} {failed[0]}"
    values = [table.values[curve, length].value for length in shown if (curve, length) in table.values]
    far = [value for value in values if not table.measure.level(value) <= edge]
    if not far:
        return ""
    ends = far if len(far) == len(values) else far[-1:]
    return "→ " + " … ".join(map(table.measure.write, ends[:: max(1, len(ends) - 1)]))


def colour_of(table: Table, shown: list[int], length: int) -> str:
    if length in table.train_lengths:
        return TRAINED
    longer = [n for n in shown if n not in table.train_lengths]
    return SHADES[longer.index(length) - len(longer)]


def name_values(axes: "Axes", table: Table, low: float, high: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    measure = table.measure
    ticks = ticks_of(measure, measure.at(low), measure.at(high), 8)
    axes.xaxis.set_major_locator(FixedLocator([measure.level(tick) for tick in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter(tick_labels(ticks, measure)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(measure.label, labelpad=6)


def head(axes: "Axes", table: Table, shown: list[int]) -> None:
    """Write title, facts and the legend of the dots above the panel."""

    spread = [" · thin lines: range of the seeds"] if any(cell.spread for cell in table.cells.values()) else []
    under = "".join([f"trained at {listed(table.train_lengths)} · {facts(table)}", *spread])
    lines = wrapped(under, (PLOT + NOTES) / (0.56 * 9.5 / 72))
    above(axes, table.title, 42 + 12 * len(lines), size=15, weight="bold")
    above(axes, "\n".join(lines), 34, size=9.5, color=QUIET, linespacing=1.25)
    x = 0.0
    for length in shown:
        text = f"{length}, trained" if length in table.train_lengths else str(length)
        look: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center_baseline"}
        axes.annotate("●", (0, 1), xytext=(x, 14), size=10, color=colour_of(table, shown, length), **look)
        axes.annotate(text, (0, 1), xytext=(x + 11, 14), size=10, color=INK, **look)
        x += 24 + 6.6 * len(text)


def note(axes: "Axes", y: float, text: str, inches: float, **look: Any) -> None:
    """Write `text` to the right of the panel at the height of a row."""
    at: dict[str, Any] = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "va": "center_baseline",
    }
    axes.annotate(text, (1, y), xytext=(72 * inches, 0), **at, **look)
