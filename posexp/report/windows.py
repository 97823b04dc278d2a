"""The picture of windows and transforms: the change of each curve as trained and changed. Sizes are in inches.

Each row is a dumbbell: a hollow dot as trained, a filled one changed, at 4 times the training length and at the longest
multiple.
"""

from typing import TYPE_CHECKING

from posexp.output.figure import ROW, new_figure, set_log_scale, shortened, write_heading
from posexp.output.style import Look
from posexp.report.curves import draw_margin, drawn
from posexp.report.metric import CHANGE, Value, signed
from posexp.report.tables import Table, facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pair = tuple[str, str]  # curves as trained and changed
NEAR = 4  # times the training length
WIDE, AROUND = 10.5, 1.7  # of the figure, and the space for title and axis around the rows


def find_windows(table: Table) -> list[Pair]:
    """Return (curve as trained, curve changed) of a table of changes.

    Changed are curves with another window, and those with a transform that was measured at one longer length: at
    several, a line shows more.
    """
    found: list[Pair] = []
    for curve in table.curves if table.measure == CHANGE else ():
        parts = curve.split(" · ")
        trained = " · ".join([parts[0], *(part for part in parts[1:] if part.startswith("judged from "))])
        if trained == curve or trained not in table.curves:
            continue
        values = [n for n in table.lengths if n > min(table.trained[curve]) and (curve, n) in table.values]
        window = any(part.startswith("window ") for part in parts)
        if len(values) == 1 or (window and set(values) & set(longer(table, [(trained, curve)]))):
            found.append((trained, curve))
    return found


def trained_at(table: Table, pairs: list[Pair]) -> int:
    return min(min(table.trained[curve]) for _, curve in pairs)


def longer(table: Table, pairs: list[Pair]) -> list[int]:
    """Return the lengths to draw: 4 times the training length, if that was measured, and the longest."""
    trained = trained_at(table, pairs)
    return sorted({n for n in table.lengths if n in (NEAR * trained, max(table.lengths)) and n > trained})


def draw_windows(table: Table, pairs: list[Pair], look_of: dict[str, Look]) -> "Figure":
    """Draw one panel per length. The largest change as trained is on top."""
    lengths, last, trained = longer(table, pairs), max(table.lengths), trained_at(table, pairs)

    def order(pair: Pair) -> float:
        one = table.values.get((pair[0], last))
        return -one.value if one else float("-inf")

    pairs = sorted(pairs, key=order)
    figure = new_figure(WIDE, AROUND + 1.2 * ROW * (len(pairs) + 1))
    panels = figure.subplots(1, len(lengths), sharey=True, sharex=True, squeeze=False)[0]
    for axes, length in zip(panels, lengths, strict=True):
        draw_margin(axes, "x")
        for y, pair in enumerate(pairs):
            draw_pair(axes, [table.values.get((curve, length)) for curve in pair], y, look_of[pair[1]])
        axes.set_title(f"{length / trained:g} times the training length, {length:,} tokens")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("change of perplexity in percent")
    panels[0].set_yticks(range(len(pairs)), [shortened(curve) for _, curve in pairs])
    panels[0].set_ylim(len(pairs) - 0.4, -0.6)
    set_log_scale(panels[0], "x", linear=CHANGE.linear, sign="+")
    legend = "hollow: as trained · filled: changed · grey: within 1 %"
    write_heading(figure, title(table, pairs, last), [f"{table.protocol} · {facts(table)} · {legend}"])
    return figure


def draw_pair(axes: "Axes", found: list[Value | None], y: int, look: Look) -> None:
    """Draw one dumbbell, with the intervals as thin lines. A missing end is omitted."""
    values = [drawn(one.value if one else None) for one in found]
    axes.plot(values, [y, y], color=look.colour, linewidth=3, alpha=0.35, zorder=2)
    for one, value, face in zip(found, values, ("white", look.colour), strict=True):
        if one and one.low is not None and one.high is not None:
            axes.plot([drawn(one.low), drawn(one.high)], [y, y], color=look.colour, linewidth=1, zorder=2.5)
        axes.plot([value], [y], "o", markerfacecolor=face, markeredgecolor=look.colour, markersize=7.5, zorder=3)


def title(table: Table, pairs: list[Pair], last: int) -> str:
    """Return the largest changes of curves as trained and changed, at the longest length."""
    parts = []
    for side, words in zip(zip(*pairs, strict=True), ("as trained", "with the change"), strict=True):
        found = [one.value for curve in side if (one := table.values.get((curve, last)))]
        parts += [f"up to {signed(max(found, key=abs))} % {words}"] if found else []
    return f"At {last / trained_at(table, pairs):g} times the training length, perplexity changes by {', '.join(parts)}"
