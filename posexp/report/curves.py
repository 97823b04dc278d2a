"""Pictures of tables: values by length, with a large panel for the first table and a small one for each other.

Sizes are in inches. Positions within a panel are fractions of its height.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from posexp.output.style import QUIET, Look, above, rendered, size_of, wrapped
from posexp.output.text import one_line
from posexp.report.failure_marks import ROW, STRIP, draw_failures, failing, failures_of
from posexp.report.metric import CHANGE, Value
from posexp.report.tables import Table, facts, listed
from posexp.report.ticks import DENSE, tick_labels, ticks_of, x_ticks, y_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 5
BANDED = 8  # maximum number of curves in a panel with bands, as more bands would overlap
WIDTH, PLOT = 8.9, 6.7  # of all panels together; of the headline, whose legend is on the right
LEFT, ABOVE, BELOW = 0.85, 0.95, 0.65
NOTHING = Value(math.nan, None, None)


def pictures(shown: list[Table], look_of: dict[str, Look]) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the tables. Equal tables give equal bytes."""
    return rendered(lambda: draw_curves(shown, look_of), shown[0].title)


def draw_curves(shown: list[Table], look_of: dict[str, Look]) -> "Figure":
    """Draw the first MAX_PANELS tables. The first one is the headline."""
    from matplotlib.figure import Figure

    shown_curves = {curve for table in shown[:MAX_PANELS] for curve in table.curves}
    look_of = {curve: look for curve, look in look_of.items() if curve in shown_curves}
    main, others = shown[0], shown[1:MAX_PANELS]
    main_height = max(4.3, ROW * (len(look_of) + 3), ROW * 3 * len(failing(main)))
    row_heights = [
        max(2.6, ROW * 2.5 * max(len(failing(table)) for table in others[i : i + 2])) for i in range(0, len(others), 2)
    ]
    height = ABOVE + main_height + BELOW + sum(ABOVE + h + BELOW for h in row_heights)
    figure = Figure(figsize=(LEFT + WIDTH, height))

    def panel(table: Table, left: float, top: float, wide: float, high: float, big: bool) -> None:
        box = (left / (LEFT + WIDTH), 1 - (top + high) / height, wide / (LEFT + WIDTH), high / height)
        axes = figure.add_axes(box)
        ends = draw_panel(axes, table, look_of, wide, high, big)
        if big:
            name_curves(axes, look_of, ends, high, bool(any(failing(table) for table in shown)))

    panel(main, LEFT, ABOVE, PLOT, main_height, True)
    top = ABOVE + main_height + BELOW
    half = (WIDTH - LEFT) / 2
    for i, high in enumerate(row_heights):
        pair = others[2 * i : 2 * i + 2]
        for j, table in enumerate(pair):
            wide = PLOT if len(others) == 1 else half
            panel(table, LEFT + j * (half + LEFT), top + ABOVE, wide, high, False)
        top += ABOVE + high + BELOW
    if more := len(shown) - 1 - len(others):
        figure.text(LEFT / (LEFT + WIDTH), 0, f"{more} more in table.md and rows.csv", color=QUIET, size=9.5)
    return figure


def draw_panel(
    axes: "Axes", table: Table, look_of: dict[str, Look], wide: float, high: float, big: bool, beside: bool = False
) -> dict[str, tuple[float, bool]]:
    """Draw one table, without text if `beside`. Return each curve's end: (height fraction, whether at the right)."""
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    size = 11 if big else 9.5
    # the context of a first target is 0, which has no logarithm
    base = 0.0 if min(*table.lengths, *table.train_lengths) > 0 else 1.0

    extent = [math.log2(length + base) for length in (*table.lengths, *table.train_lengths)]
    pad = max(0.045 * (max(extent) - min(extent)), 0.25)
    left, right = min(extent) - pad, max(extent) + pad
    axes.set_xscale("log", base=2)
    axes.set_xlim(2**left, 2**right)
    per_octave = wide / (right - left)
    failed = [
        failures_of(table, curve, base, size - 1.5, lambda x: (math.log2(x) - left) * per_octave, wide)
        for curve in failing(table)
    ]
    if beside:
        failed = [replace(failure, words="", place="before") for failure in failed]
    row = ROW * (1.6 if any(failure.place == "above" for failure in failed) else 1)
    measure, values = table.measure, table.values
    strip = (min(row * len(failed) / high, 0.75) + 0.02 if values else 0.97) if failed else 0.0
    shown = x_ticks(table, per_octave, size / 72)
    axes.xaxis.set_major_locator(FixedLocator([length + base for length in shown]))
    axes.xaxis.set_major_formatter(FixedFormatter([str(length) for length in shown]))
    axes.xaxis.set_minor_locator(NullLocator())

    bottom, top = y_range(table, [key for key in values if banded(table, *key)])
    ceiling = bottom + (top - bottom) / (1 - strip)
    axes.set_ylim(bottom, ceiling)
    least, most = measure.whole or (measure.at(bottom), measure.at(top))
    ticks = ticks_of(measure, least, most, 9 if big else 7) if values else []
    axes.yaxis.set_major_locator(FixedLocator([measure.level(tick) for tick in ticks]))
    axes.yaxis.set_major_formatter(FixedFormatter(tick_labels(ticks, measure)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=size, length=3)

    for length in table.train_lengths:
        axes.axvline(length + base, color="#8a8a8a", linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
        if beside:
            continue
        note = f"trained at {length}" if len(table.train_lengths) == 1 else "trained"
        near_left = math.log2(length + base) - left < 0.12 * (right - left)
        above(axes, note, 4, x=length + base, size=size - 1.5, color=QUIET, ha="left" if near_left else "center")
    ends: dict[str, tuple[float, bool]] = {}
    for curve in table.curves:
        draw_curve(axes, table, curve, base, look_of[curve], big)
        known = [length for length in table.lengths if (curve, length) in values]
        if known:
            y = (measure.level(values[curve, known[-1]].value) - bottom) / (ceiling - bottom)
            ends[curve] = (y, known[-1] == max(table.lengths))
    if failed:
        axes.add_patch(
            Rectangle((0, 1 - strip), 1, strip, transform=axes.transAxes, color=STRIP, linewidth=0, zorder=0.4)
        )
    for i, failure in enumerate(failed):
        y = 1 - (i + 0.5) * (strip - 0.02) / len(failed) - 0.01
        draw_failures(axes, failure, y, look_of[failure.curve].colour, size - 1.5)
        last = table.cells.get((failure.curve, max(table.lengths)))
        if failure.curve not in ends or (last and last.nll is None):
            ends[failure.curve] = (y, failure.xs[-1] == max(table.lengths) + base)

    axes.set_xlabel(table.axis, size=size, labelpad=6)
    axes.set_ylabel(measure.label, size=size, labelpad=6)
    if beside:
        above(axes, measure.title, 8, size=11.5, weight="bold")
        return ends
    words = 10.5 if big else 9
    lines = wrapped(subtitle(table, big), (WIDTH if big else wide) / (0.56 * words / 72))
    taller = 1.25 * words * (len(lines) - 1)
    above(axes, table.title, (43 if big else 37) + taller, size=15 if big else 11.5, weight="bold")
    above(axes, "\n".join(lines), 24 if big else 21, size=words, color=QUIET, linespacing=1.25)
    return ends


def draw_curve(axes: "Axes", table: Table, curve: str, base: float, look: Look, big: bool) -> None:
    """Draw a curve with gaps at missing values, its band, and hollow markers where the verdict is "breaks"."""
    lengths = [length for length in table.lengths if (curve, length) in table.cells]
    values = [table.values.get((curve, length), NOTHING) for length in lengths]
    if all(value is NOTHING for value in values):
        return
    xs = [length + base for length in lengths]
    ys = [table.measure.level(value.value) for value in values]
    if len(table.curves) <= BANDED:
        bounds = [bounds_of(table, curve, length) for length in lengths]
        lows, highs = ([table.measure.level(bound) for bound in side] for side in zip(*bounds, strict=True))
        axes.fill_between(xs, lows, highs, color=look.colour, alpha=0.22, linewidth=0, zorder=2)
        for i, x in enumerate(xs):  # a point without neighbours has no band, so its interval is a line
            alone = all(math.isnan(low) for low in lows[max(i - 1, 0) : i] + lows[i + 1 : i + 2])
            if alone and not math.isnan(lows[i] + highs[i]):
                axes.vlines(x, lows[i], highs[i], color=look.colour, alpha=0.35, linewidth=4, zorder=2)
    size = size_of(look.marker) * (1 if big else 0.8)
    axes.plot(
        xs,
        ys,
        color=look.colour,
        linestyle=look.dash,
        linewidth=2.2 if big else 1.8,
        marker=None if len(xs) > DENSE else look.marker,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.9,
        zorder=3,
    )
    breaks = [i for i, length in enumerate(lengths) if table.words.get((curve, length)) == "breaks"]
    hollow: dict[str, Any] = {
        "linestyle": "none",
        "marker": look.marker,
        "markersize": size - 0.7,
        "markerfacecolor": "white",
        "markeredgecolor": look.colour,
        "markeredgewidth": 1.6,
    }
    axes.plot([xs[i] for i in breaks], [ys[i] for i in breaks], zorder=3.1, **hollow)


def bounds_of(table: Table, curve: str, length: int) -> tuple[float | None, float | None]:
    """Return the bounds of the band at a point. The band of a change starts with width 0 at the training length."""
    if table.measure == CHANGE and length == min(table.trained[curve]) and (curve, length) in table.values:
        return 0.0, 0.0
    value = table.values.get((curve, length))
    return (value.low, value.high) if value and banded(table, curve, length) else (None, None)


def banded(table: Table, curve: str, length: int) -> bool:
    """Return whether a point has a band. Levels have none over documents, whose variation all curves share."""
    value = table.values.get((curve, length))
    if value is None or value.low is None or len(table.curves) > BANDED:
        return False
    return table.measure == CHANGE or table.measure.whole is not None or table.cells[curve, length].spread


def name_curves(
    axes: "Axes", look_of: dict[str, Look], ends: dict[str, tuple[float, bool]], high: float, cross: bool
) -> None:
    """Draw the legend to the right of the headline, each name as close as possible to the end of its curve."""
    order = sorted(look_of, key=lambda curve: (-ends.get(curve, (-1.0, False))[0], curve))
    step = ROW / high
    heights: list[float] = []
    for curve in order:
        wanted = ends.get(curve, (0.0, False))[0]
        heights.append(min(wanted, heights[-1] - step) if heights else wanted)
    floor = 0.02 + (1.3 * step if cross else 0)
    for i in reversed(range(len(heights))):
        heights[i] = max(heights[i], floor)
        floor = heights[i] + step
    edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.9}
    for curve, y in zip(order, heights, strict=True):
        look = look_of[curve]
        plain_line: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "color": look.colour}
        if curve in ends and ends[curve][1]:
            axes.plot([1, 1.03], [ends[curve][0], y], linewidth=0.8, alpha=0.7, **plain_line)
        axes.plot([1.035, 1.085], [y, y], linewidth=2.2, linestyle=look.dash, **plain_line)
        axes.plot([1.06], [y], look.marker, markersize=size_of(look.marker), **edge, **plain_line)
        axes.text(1.1, y, one_line(curve), transform=axes.transAxes, va="center_baseline", size=11.5)
    if cross:
        axes.plot(
            [1.06], [0.02], "x", color=QUIET, markersize=7, markeredgewidth=2, transform=axes.transAxes, clip_on=False
        )
        axes.text(1.1, 0.02, "no value", transform=axes.transAxes, va="center_baseline", size=10, color=QUIET)


def subtitle(table: Table, big: bool) -> str:
    hollow = ["hollow: breaks"] if "breaks" in table.words.values() else []
    if not big:
        return " · ".join([facts(table), *hollow])
    several = len(table.train_lengths) > 1  # a single length is written in the panel
    parts = [f"trained at {listed(table.train_lengths)}"] * several + [facts(table)]
    bounded = [key for key in table.values if banded(table, *key)]
    kinds = {table.cells[key].spread and table.measure != CHANGE for key in bounded}
    bands = ["range of the seeds"] * (True in kinds) + [f"95 % over {table.measure.over}"] * (False in kinds)
    grey = ["grey: within 1 %"] if table.measure == CHANGE else []
    return " · ".join(parts + (["band: " + " or ".join(bands)] if bands else []) + grey + hollow)
