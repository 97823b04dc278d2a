"""Plotly figures of tables and of losses in training, as the dictionaries that plotly.js reads.

Each point would take plotly.graph_objects longer than all else on the page, so a test validates the figures instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from posexp.evaluation.verdicts import TOO_FEW
from posexp.output.style import INK, QUIET, Look
from posexp.output.text import one_line
from posexp.report.curves import DENSE, bounds_of
from posexp.report.metric import Metric
from posexp.report.table import failure, interval, shown_value
from posexp.report.tables import Table
from posexp.report.verdict_table import cell_lines

Figure = dict[str, Any]
Points = Sequence[tuple[int, float]]  # tokens of training, nats per token
TrainedRun = tuple[str, str, Points, Points]  # curve, name, losses in training and on validation text
# by matplotlib's name: that of plotly.js, and a letter for text
SYMBOLS = {
    **{"o": ("circle", "●"), "s": ("square", "■"), "^": ("triangle-up", "▲"), "v": ("triangle-down", "▼")},
    **{"<": ("triangle-left", "◀"), ">": ("triangle-right", "▶"), "D": ("diamond", "◆"), "*": ("star", "★")},
    **{"p": ("pentagon", "⬟"), "h": ("hexagon", "⬢")},
}
MOST_POINTS, ALL_POINTS = 300, 30_000  # of the losses of a run and of all runs
UNDECIDED = ("unclear", TOO_FEW)  # verdicts with hollow points
HOVER = "<b>%{text}</b><br>%{x:,} tokens<br>loss %{y:.3f}<extra></extra>"
HEIGHT, ROW = 430, 20  # of a panel and of a row of failures above it, in pixels
LETTERS = 32  # of a curve's name in the legend
AXIS = {"gridcolor": "#e8e8e8", "linecolor": QUIET, "zeroline": False, "automargin": True, "title": {"standoff": 8}}
DEFAULTS: Figure = {  # of every layout, for print and downloaded images; page.css has the colours of a dark screen
    **{"xaxis": AXIS, "yaxis": AXIS, "margin": {"l": 8, "r": 8, "t": 36, "b": 8}, "hovermode": "closest"},
    "font": {"family": "system-ui, 'DejaVu Sans', sans-serif", "color": INK},
    "hoverlabel": {"align": "left", "bgcolor": "white", "bordercolor": QUIET, "font": {"color": INK}},
    "legend": {"tracegroupgap": 0, "bgcolor": "rgba(0,0,0,0)"},
}


@dataclass(frozen=True)
class Pen:
    """The look of a curve in all figures of a page, which also show and hide it together by its `key`."""

    key: str
    name: str
    colour: str
    symbol: str
    glyph: str
    dash: str

    def trace(self, kind: str, **points: Any) -> Figure:
        return {"type": "scatter", "uid": kind + self.key, "legendgroup": self.key, "name": self.name, **points}


def pens_of(look_of: dict[str, Look]) -> dict[str, Pen]:
    found = {}
    for number, (curve, look) in enumerate(look_of.items()):
        short = curve if len(curve) <= LETTERS else f"{curve[: LETTERS - 9]}…{curve[-8:]}"
        dash = "solid" if look.dash == "-" else ",".join(f"{2 * part:g}px" for part in look.dash[1])
        found[curve] = Pen(str(number), plain(short), look.colour, *SYMBOLS.get(look.marker, SYMBOLS["o"]), dash)
    return found


def plain(text: str) -> str:
    """Escape text for Plotly, which interprets some HTML in names and labels."""
    return escape(one_line(text), quote=False)


def curves_figure(table: Table, pen_of: dict[str, Pen]) -> Figure:
    """Return the metric of a table by length. Missing values are crosses in a strip above, a row per curve."""
    failed = {curve: [n for n in table.lengths if failure(table, (curve, n))] for curve in table.curves}
    rows, last = [curve for curve, lengths in failed.items() if lengths], max(table.lengths)
    end_of = {curve: table.values[curve, last].value for curve in table.curves if (curve, last) in table.values}
    traces: list[Figure] = []
    for curve in sorted(table.curves, key=lambda curve: -end_of.get(curve, math.inf)):
        traces += [*bands(table, curve, pen_of[curve]), line(table, curve, pen_of[curve])]
        if curve in rows:
            traces.append(crosses(table, curve, failed[curve], rows.index(curve), pen_of[curve]))
    high = ROW * len(rows)
    edge = HEIGHT / (HEIGHT + high)
    labelled = [n for n in table.lengths if len(table.lengths) <= DENSE or n & (n - 1) == 0]
    ticks = sorted({*labelled, *table.train_lengths})
    x = {"type": "log", "tickvals": [at(table, n) for n in ticks], "ticktext": [str(n) for n in ticks]}
    y = {"domain": [0, edge], **scale(table.measure, [value for trace in traces for value in trace["y"]])}
    strip = {"range": [-0.5, max(1, len(rows)) - 0.5], "visible": False, "fixedrange": True}
    layout = {
        "height": HEIGHT + high + 60,
        "xaxis": {"title": {"text": f"{table.axis} (log scale)"}, **x},
        "yaxis": {"title": {"text": table.measure.label}, **y},
        "yaxis2": {"domain": [min(edge + 0.01, 1), 1], **strip},
        "shapes": marks(table),
    }
    return {"data": traces, "layout": layout}


def at(table: Table, length: int) -> int:
    """Return the place of a length on the logarithmic axis. A context of 0 has no logarithm, so all are one longer."""
    return length + table.begins_at_zero


def drawn(measure: Metric, value: float | None) -> float | None:
    """Return a value as the axis has it. Plotly has no axis that is linear around 0 and logarithmic beyond."""
    if value is None or not math.isfinite(value):
        return None
    far = measure.linear is not None and abs(value) > measure.linear
    return math.copysign(1 + math.log10(abs(value)), value) if far else value


def line(table: Table, curve: str, pen: Pen) -> Figure:
    lengths = [length for length in table.lengths if (curve, length) in table.cells]
    values = [table.values.get((curve, length)) for length in lengths]
    fill = ["white" if table.words.get((curve, length)) in UNDECIDED else pen.colour for length in lengths]
    return pen.trace(
        "line",
        x=[at(table, length) for length in lengths],
        y=[drawn(table.measure, value.value) if value else None for value in values],
        mode="lines+markers" if len(lengths) <= DENSE else "lines",
        line={"color": pen.colour, "width": 2, "dash": pen.dash},
        marker={"symbol": pen.symbol, "size": 9, "color": fill, "line": {"color": pen.colour, "width": 1.5}},
        hoverinfo="text",
        hovertext=[description(table, curve, length) for length in lengths],
    )


def bands(table: Table, curve: str, pen: Pen) -> list[Figure]:
    """Return the intervals of a curve, a band for each sequence of lengths that have one."""
    bounds = {n: [drawn(table.measure, side) for side in bounds_of(table, curve, n)] for n in table.lengths}
    found: list[Figure] = []
    for bounded, group in groupby(bounds, lambda length: None not in bounds[length]):
        if bounded:
            xs, lows, highs = map(list, zip(*((at(table, n), *bounds[n]) for n in group), strict=True))
            outline = {"color": pen.colour, "width": 4 if len(xs) == 1 else 0}
            points_of: Figure = {"x": xs + xs[::-1], "y": lows + highs[::-1], "mode": "lines", "line": outline}
            look = {"fill": "toself", "fillcolor": pen.colour, "opacity": 0.2, "hoverinfo": "skip", "showlegend": False}
            found.append(pen.trace(f"band{len(found)}-", **points_of, **look))
    return found


def crosses(table: Table, curve: str, lengths: list[int], row: int, pen: Pen) -> Figure:
    look = {"symbol": "x", "size": 8, "color": pen.colour}
    points: Figure = {"x": [at(table, length) for length in lengths], "y": [row] * len(lengths), "yaxis": "y2"}
    points |= {"hoverinfo": "text", "hovertext": [description(table, curve, length) for length in lengths]}
    return pen.trace("cross", mode="markers", marker=look, showlegend=False, **points)


def marks(table: Table) -> list[Figure]:
    """Return lines at the training lengths, and for changes the range that is too small to matter."""
    rule = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": QUIET, "width": 1, "dash": "dash"}}
    label: Figure = {"textposition": "end", "textangle": 0, "yanchor": "bottom", "font": {"size": 12, "color": QUIET}}
    found: list[Figure] = []
    for length in table.train_lengths:
        text = f"trained at {length}" if len(table.train_lengths) == 1 else "trained"
        label |= {"text": text, "xanchor": "left" if length <= min(table.lengths) else "center"}
        found.append({**rule, "x0": at(table, length), "x1": at(table, length), "label": {**label}})
    if table.measure.linear:
        small = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": -1, "y1": 1, "layer": "below"}
        found.append({**small, "fillcolor": QUIET, "opacity": 0.15, "line": {"width": 0}})
    return found


def scale(measure: Metric, levels: list[float | None]) -> Figure:
    """Return the scale of the metric's axis."""
    if measure.log:
        return {"type": "log", "tickformat": ",~g"}
    if measure.whole:
        return {"range": [measure.whole[0] - 3, measure.whole[1] + 3]}
    if not measure.linear:
        return {}
    far = int(max((abs(level) for level in levels if level is not None), default=1.0))
    steps = (1, 2, 5) if far <= 3 else (1,)
    sizes = [step * 10.0**power for power in range(0, far + 1, 1 + far // 8) for step in steps]
    ticks = sorted({0.0, *sizes, *(-size for size in sizes if size <= 100)})
    return {
        "tickvals": [drawn(measure, tick) for tick in ticks],
        "ticktext": [("−" if tick < 0 else "+" if tick > 0 else "") + f"{abs(tick):,.6g}" for tick in ticks],
    }


def description(table: Table, curve: str, length: int) -> str:
    """Return what is known of a curve at a length, as text for Plotly."""
    key, axis = (curve, length), table.axis
    lines = [curve, f"{length:,} {axis}" if axis.startswith("tokens") else f"{axis}: {length:,}"]
    if key in table.values:
        bounds = interval(table, key)
        lines.append(f"{table.measure.axis}: {shown_value(table, key)}" + (f" [{', '.join(bounds)}]" if bounds else ""))
    verdict = table.verdict_at.get(key)
    if verdict and verdict.cropped:
        lines += cell_lines(verdict)
        lines += [f"p = {verdict.cropped.p:.3f}"] if verdict.cropped.p is not None else []
    lines += [failure(table, key)] if failure(table, key) else []
    name, *others = map(plain, lines)
    return "<br>".join([f"<b>{name}</b>", *others])


def training_figure(runs: list[TrainedRun], pen_of: dict[str, Pen]) -> Figure:
    """Return the losses of runs by tokens. Diamonds are losses on validation text."""
    traces: list[Figure] = []
    most = max(30, min(MOST_POINTS, ALL_POINTS // max(1, len(runs))))
    named: set[str] = set()
    for number, (curve, name, losses, validation) in enumerate(runs):
        pen, points = pen_of[curve], thinned(losses, most)
        if not points:
            continue
        xs, ys = map(list, zip(*points, strict=True))
        look: Figure = {"text": plain(name), "line": {"color": pen.colour, "width": 1.5}, "hovertemplate": HOVER}
        traces.append(pen.trace(f"loss{number}-", x=xs, y=ys, mode="lines", showlegend=curve not in named, **look))
        named.add(curve)
        if validation:
            xs, ys = map(list, zip(*thinned(validation, most), strict=True))
            mark = {"symbol": "diamond-open", "size": 8, "color": pen.colour, "line": {"width": 2}}
            line = {"color": pen.colour, "width": 1, "dash": "dot"}
            look |= {"mode": "lines+markers", "marker": mark, "line": line, "showlegend": False}
            traces.append(pen.trace(f"valid{number}-", x=xs, y=ys, **look))
    x = {"type": "log", "title": {"text": "tokens of training (log scale)"}, "tickformat": "~s", "dtick": 1}
    y = {"title": {"text": "loss in nats per token"}}
    return {"data": traces, "layout": {"height": HEIGHT, "xaxis": x, "yaxis": y}}


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """Return at most that many points, each the mean of as many neighbours, at the tokens of the last of them."""
    size = max(1, -(-len(points) // most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(loss for _, loss in group) / len(group)) for group in groups]
