"""The ranking picture of curves that are too many to follow: one row each, by family. Sizes are in inches.

The left panel has the level at the training length relative to the best curve there, the right one the change at two
lengths, coloured by verdict.
"""

from typing import TYPE_CHECKING

from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.verdicts import WORDS
from posexp.output.figure import ROW, new_figure, set_log_scale, shortened, write_heading
from posexp.output.style import FAMILIES, INK, QUIET, VERDICTS, family_of
from posexp.report.curves import draw_margin, draw_points, fill_of
from posexp.report.finding import finding
from posexp.report.metric import CHANGE, Value, percent
from posexp.report.tables import Table, facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIMES = (2, 16)  # the training length
TRAINED = "at the training length"
WIDE, AROUND = 10.5, 2.2  # of the figure, and the space for title, legend and axis above and below the rows
TITLES = {
    **{"none": "no positions", "added": "added to embeddings", "rotary": "rotary", "bias": "bias by distance"},
    **{"content": "content-dependent", "wrapper": "combinations", "": "other"},
}


def draw_ranking(table: Table, pairs: Pairs | None = None, subject: str = "") -> "Figure":
    """Draw the curves of a table, of changes unless it is of a task, and a heading above each family."""
    levels, base = relative_levels(table, pairs)
    groups = grouped(table, levels)
    rows = [row for family, curves in groups.items() for row in ((family, ""), *((family, curve) for curve in curves))]
    y_of = {curve: y for y, (_, curve) in enumerate(rows) if curve}
    figure = new_figure(WIDE, AROUND + 0.9 * ROW * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 3])
    draw_points(left, {y_of[curve]: one for curve, one in levels.items()}, "o", INK)
    draw_values(right, table, y_of, times=bool(base))
    words = [word for word in WORDS if word in table.words.values()]
    for word in words:
        right.plot([], [], "s", label=word, **fill_of(word, VERDICTS[word]))
    handles = right.get_legend_handles_labels()
    columns = -(-len(handles[0]) // 2)
    legend = left.legend(*handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, columnspacing=1)
    legend.set_in_layout(False)  # it may be wider than its panel
    left.set_title(" \n ")  # room for it
    left.set_yticks(range(len(rows)), [shortened(curve) if curve else TITLES[family] for family, curve in rows])
    for (_, curve), text in zip(rows, left.get_yticklabels(), strict=True):
        text.set(**{} if curve else {"weight": "bold", "color": QUIET})
    left.set_ylim(len(rows) - 0.4, -0.6)
    level = f"perplexity above {shortened(base)}\n{TRAINED}, percent" if base else f"{table.measure.axis}\n{TRAINED}"
    left.set_xlabel(level)
    right.set_xlabel("change of perplexity beyond\nthe training length, percent" if base else table.measure.axis)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        if table.measure.linear:
            set_log_scale(axes, "x", linear=table.measure.linear, sign="+")
    if table.measure == CHANGE:
        draw_margin(right, "x")
    bounded = ["lines: 95 % over seeds and documents"] * any(one.low is not None for one in levels.values())
    write_heading(figure, finding(table, subject), [" · ".join([table.protocol, facts(table), *bounded])])
    return figure


def relative_levels(table: Table, pairs: Pairs | None) -> tuple[dict[str, Value], str]:
    """Return the level of each curve, in percent of perplexity above the best (tasks: its value), and the best."""
    cells = {curve: table.cells.get((curve, min(table.trained[curve]))) for curve in table.curves}
    nlls = {curve: cell.nll for curve, cell in cells.items() if cell and cell.nll is not None}
    values = {c: one for c in table.curves if (one := table.values.get((c, min(table.trained[c])))) is not None}
    if table.measure != CHANGE or not nlls:
        return values, ""
    base = min(nlls, key=lambda curve: nlls[curve])
    places = {curve: table.place(curve, min(table.trained[curve])) for curve in nlls}
    paired = pairs.against(places[base], places.values()) if pairs else {}
    found = {}
    for curve, nll in nlls.items():
        value, low, high = nll - nlls[base], None, None
        if known := paired.get(places[curve]):
            value, low, high = known.value, known.low, known.high
        found[curve] = Value(percent(value), *(None if bound is None else percent(bound) for bound in (low, high)))
    return found, base


def grouped(table: Table, levels: dict[str, Value]) -> dict[str, list[str]]:
    """Return the curves of each family, the least change at the longest length first and those without one last."""
    last = max(table.lengths)

    def order(curve: str) -> tuple[bool, float, float, str]:
        one = table.values.get((curve, last))
        sign = -1 if table.measure.high_is_good else 1
        level = levels[curve].value if curve in levels else 0.0
        return one is None, sign * one.value if one else 0.0, level, curve

    found: dict[str, list[str]] = {family: [] for family in (*FAMILIES, "")}
    for curve in sorted(table.curves, key=order):
        found[family_of(curve)].append(curve)
    return {family: curves for family, curves in found.items() if curves}


def longer(table: Table) -> list[int]:
    """Return the lengths of the right panel: 2 and 16 times the training length, or the longest instead of that."""
    trained = min(table.train_lengths)
    beyond = [n for n in table.lengths if n > trained] or [max(table.lengths)]
    near, far = (n * trained for n in TIMES)
    return sorted({near if near in beyond else beyond[0], far if far in beyond else beyond[-1]})


def draw_values(axes: "Axes", table: Table, y_of: dict[str, int], times: bool) -> None:
    """Draw the values at one or two lengths, the second below the first, coloured by verdict."""
    lengths = longer(table)
    for marker, length in zip("oD", lengths, strict=False):
        offset = 0.36 * lengths.index(length) - 0.18 if len(lengths) > 1 else 0.0
        label = f"{length / max(1, min(table.train_lengths)):.3g} × the training length" if times else str(length)
        axes.plot([], [], marker, color=QUIET, label=label)
        known = {curve: value for curve in y_of if (value := table.values.get((curve, length)))}
        words = {curve: table.words.get((curve, length), "") for curve in known}
        for word in dict.fromkeys(words.values()):
            points = {y_of[curve] + offset: one for curve, one in known.items() if words[curve] == word}
            draw_points(axes, points, marker, VERDICTS.get(word, INK), word)
    for curve, y in y_of.items():
        cell = table.cells.get((curve, lengths[-1]))
        if cell and cell.failures:
            place = axes.get_yaxis_transform()
            axes.text(0.99, y, cell.failure, size="small", color=QUIET, transform=place, ha="right", va="center")
