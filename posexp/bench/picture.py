"""The picture of a bench: bars of training speed and lines of evaluation speed. Sizes are in inches."""

import io
import warnings
from typing import TYPE_CHECKING, Any

from posexp.bench.rows import Row
from posexp.output.style import COLOURS, QUIET, STYLE, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POSEXP, PEER = COLOURS[0], COLOURS[4]
BAR, MIN_HEIGHT = 0.3, 3.4


def pictures(rows: list[Row], machine: str) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the rows. Equal rows give equal bytes. `machine` is written above the panels."""
    from matplotlib import style

    png, svg = io.BytesIO(), io.BytesIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the font lacks some scripts
        figure = draw_bench(rows, machine)
        tight: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.2, "facecolor": "white"}
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None}, **tight)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Title": "posexp bench"}, **tight)
    return png.getvalue(), svg.getvalue()


def draw_bench(rows: list[Row], machine: str) -> "Figure":
    from matplotlib.figure import Figure

    training = [row for row in rows if row["what"] == "training"]
    figure = Figure(figsize=(13, max(MIN_HEIGHT, BAR * len(training) + 1.2)), layout="constrained")
    bars, lines = figure.subplots(1, 2)
    draw_bars(bars, training)
    draw_lines(lines, [row for row in rows if row["what"] == "evaluation"])
    figure.suptitle(machine, x=0.01, ha="left", fontsize=9.5, color=QUIET)
    return figure


def draw_bars(axes: "Axes", rows: list[Row]) -> None:
    """Draw the training speeds, slowest at the bottom. A contender without a speed has its status instead of a bar."""
    length = rows[0]["length"]
    ordered = sorted(rows, key=lambda row: row["ratio_to_none"] or row["tokens_per_second"] or 0)
    relative = any(row["ratio_to_none"] for row in rows)
    for index, row in enumerate(ordered):
        value = row["ratio_to_none"] if relative else row["tokens_per_second"]
        axes.barh(index, value or 0, height=0.7, color=PEER if row["kind"] == "peer" else POSEXP)
        words = row["status"] if value is None else f"{value:.2f}" if relative else f"{value:,.0f}"
        axes.annotate(words[:40], (value or 0, index), (4, 0), textcoords="offset points", va="center", fontsize=9.5)
    axes.set_yticks(range(len(ordered)), [row["contender"] for row in ordered])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    if relative:
        axes.axvline(1, color=QUIET, linewidth=0.8, zorder=0.5)
    label = "training speed, as a share of no positions" if relative else "training speed, tokens/s"
    peers = any(row["kind"] == "peer" for row in rows)
    axes.set_xlabel(label + ("; orange: other libraries" if peers else ""))
    title = f"Training at {length:,} tokens"
    axes.set_title(title, loc="left", fontsize=12)


def draw_lines(axes: "Axes", rows: list[Row]) -> None:
    """Draw the evaluation speeds by length. Markers are filled for posexp and hollow for peers."""
    names = list(dict.fromkeys((row["kind"], row["contender"]) for row in rows))
    look_of = looks_of(name for _, name in names)
    for kind, name in names:
        points = [
            (row["length"], row["tokens_per_second"])
            for row in rows
            if (row["kind"], row["contender"]) == (kind, name) and row["tokens_per_second"]
        ]
        if not points:
            continue
        look = look_of[name]
        axes.plot(
            *zip(*sorted(points), strict=True),
            color=look.colour,
            marker=look.marker,
            markerfacecolor="white" if kind == "peer" else look.colour,
            linestyle=look.dash,
            label=name,
        )
    lengths = sorted({row["length"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    speeds = [row["tokens_per_second"] for row in rows if row["tokens_per_second"]]
    if speeds:
        ticks = ticks_between(min(speeds), max(speeds))
        axes.set_yticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    axes.set_xlabel("length, tokens")
    axes.set_title("Evaluation, tokens/s", loc="left", fontsize=12)


def ticks_between(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within [low, high], and one beyond each end."""
    found = [base * 10.0**power for power in range(0, 12) for base in (1, 2, 5)]
    below = [tick for tick in found if tick <= low][-1:]
    above = [tick for tick in found if tick >= high][:1]
    return sorted({*below, *above, *(tick for tick in found if low < tick < high)})
