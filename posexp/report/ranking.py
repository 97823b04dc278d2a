"""The ranking picture: one row per curve, sorted by the value at the longest length. Sizes are in inches.

Dots are values. Lines above and below a row are the range of the seeds at its first and last length.
"""

import math
import statistics
from typing import TYPE_CHECKING, Any

from posexp.output.figure import MAX_NAME, ROW, new_figure, rendered, set_log_scale, write_heading
from posexp.output.style import QUIET
from posexp.output.text import one_line
from posexp.report.tables import Table, facts, listed
from posexp.report.verdict_table import lengths_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLLOWED = 12  # maximum number of curves that are readable as lines
MAX_DOTS = 6  # lengths in a row
BEYOND = 3.0  # times the median of all first dots; values beyond are written as text, to leave space for the others
SHADES = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")  # MAX_DOTS shades, in order of length
TRAINED = "#D55E00"
WIDE, AROUND = 9.6, 1.7  # of the figure, and the space for title, legend and axis above and below the rows


def ranking_pictures(table: Table) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the table. Equal tables give equal bytes."""
    return rendered(lambda: draw_ranking(table), table.title)


def draw_ranking(table: Table) -> "Figure":
    curves, shown = ranked(table), dots(table)
    figure = new_figure(WIDE, AROUND + ROW * (len(curves) + 1))
    axes = figure.subplots()
    low, edge = axis_limits(table, shown)
    axes.set_xlim(low, edge)
    axes.set_ylim(len(curves), -1)
    axes.set_yticks(range(len(curves)), [one_line(curve)[:MAX_NAME] for curve in curves])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(table.measure.label)
    if table.measure.log:
        set_log_scale(axes, "x")
    for length in shown:
        label = f"{length}, trained" if length in table.train_lengths else str(length)
        axes.plot([], [], "o", color=colour_of(table, shown, length), label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(shown), columnspacing=1, handletextpad=0)
    up_to = lengths_of(table.usable)
    if up_to:
        note(axes, -1, "usable length", 7, color=QUIET, size="small")
    for y, curve in enumerate(curves):
        draw_row(axes, table, curve, shown, y, edge)
        note(axes, y, up_to.get(curve, ""), 7)
        words = beyond(table, curve, shown, edge)
        note(axes, y, words, 54 if up_to else 7, size="small", color=QUIET)
    spread = ["thin lines: range of the seeds"] if any(cell.spread for cell in table.cells.values()) else []
    parts = [f"trained at {listed(table.train_lengths)}", facts(table), *spread]
    write_heading(figure, table.title, [" · ".join(parts)])
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


def axis_limits(table: Table, shown: list[int]) -> tuple[float, float]:
    """Return the limits of the axis. Some values may lie beyond."""
    found = [key for key in table.values if key[1] in shown]
    numbers = [table.values[key].value for key in found]
    numbers += [
        bound
        for key in found
        if table.cells[key].spread
        for bound in (table.values[key].low, table.values[key].high)
        if bound is not None
    ]
    known = [number for number in numbers if math.isfinite(number)] or [0.5, 1.0]
    firsts = [table.values[curve, shown[0]].value for curve in table.curves if (curve, shown[0]) in table.values]
    limit = BEYOND * statistics.median(firsts) if firsts and table.measure.log else math.inf
    near = [number for number in known if number <= limit] or known
    if table.measure.log:
        air = max((max(near) / min(near)) ** 0.04, 1.01)
        return min(near) / air, max(near) * air
    air = max(0.04 * (max(near) - min(near)), 0.005)
    return min(near) - air, max(near) + air


def draw_row(axes: "Axes", table: Table, curve: str, shown: list[int], y: int, edge: float) -> None:
    """Draw one row. Values beyond `edge` are not drawn; `beyond` returns them as text."""
    known = {length: table.values[curve, length].value for length in shown if (curve, length) in table.values}
    if any(value <= edge for value in known.values()):
        ends = [min(known.values()), min(max(known.values()), edge)]
        axes.plot(ends, [y, y], color="#c8c8c8", linewidth=2.5, zorder=2, solid_capstyle="butt")
    look: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    for length, value in reversed(known.items()):  # the training length is drawn on top
        colour = colour_of(table, shown, length)
        if value <= edge:
            axes.plot([value], [y], "o", color=colour, zorder=3, **look)
        if table.cells[curve, length].spread and length in (min(known), max(known)):
            side = -0.24 if length == min(known) else 0.24
            cell = table.values[curve, length]
            bounds = [math.nan if bound is None else min(bound, edge) for bound in (cell.low, cell.high)]
            axes.plot(bounds, [y + side] * 2, color=colour, linewidth=1.2, zorder=2.5)


def beyond(table: Table, curve: str, shown: list[int], edge: float) -> str:
    """Return the reason for missing values, or the values beyond `edge`, at most the first and the last."""
    failed = [length for length in shown if (cell := table.cells.get((curve, length))) and cell.failures]
    if failed:
        return f"{table.cells[curve, failed[0]].failure} {'from' if len(failed) > 1 else 'at'} {failed[0]}"
    values = [table.values[curve, length].value for length in shown if (curve, length) in table.values]
    far = [value for value in values if not value <= edge]
    if not far:
        return ""
    ends = far if len(far) == len(values) else far[-1:]
    return "→ " + " … ".join(map(table.measure.write, ends[:: max(1, len(ends) - 1)]))


def colour_of(table: Table, shown: list[int], length: int) -> str:
    if length in table.train_lengths:
        return TRAINED
    longer = [n for n in shown if n not in table.train_lengths]
    return SHADES[longer.index(length) - len(longer)]


def note(axes: "Axes", y: float, text: str, points: float, **look: Any) -> None:
    """Write `text` to the right of the panel at the height of a row."""
    look |= {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (1, y), xytext=(points, 0), **look)
