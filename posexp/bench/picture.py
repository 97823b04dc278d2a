"""The picture of a bench: bars of training speed and lines of evaluation speed. Sizes are in inches."""

from typing import TYPE_CHECKING

from posexp.bench.rows import Row, cell
from posexp.output.figure import ROW, name_ends, new_figure, rendered, set_log_scale, write_heading
from posexp.output.style import QUIET, Look, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_HEIGHT = 3.6
PEER = Look("#8a8a8a", "o", (0, (2, 1)))  # of every other library, whose name stands beside its line


def bench_pictures(rows: list[Row], machine: str) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the rows. Equal rows give equal bytes. `machine` is written below the panels."""
    return rendered(lambda: draw_bench(rows, machine), "posexp bench")


def draw_bench(rows: list[Row], machine: str) -> "Figure":
    """Draw the training speeds, and beside them the evaluation speeds if there are any."""
    training = [row for row in rows if row["what"] == "training"]
    evaluation = [row for row in rows if row["what"] == "evaluation" and row["tokens_per_second"]]
    peers = {row["contender"]: PEER for row in rows if row["kind"] == "peer"}
    look_of = looks_of(row["contender"] for row in rows) | peers
    figure = new_figure(14 if evaluation else 8, max(MIN_HEIGHT, ROW * 1.15 * len(training) + 1.6))
    panels = figure.subplots(1, 1 + bool(evaluation), squeeze=False).flat
    draw_bars(panels[0], training, look_of)
    if evaluation:
        draw_lines(panels[1], evaluation, look_of)
    notes = [f"{machine} · grey, hollow: other libraries" if peers else machine]
    write_heading(figure, "Speed of training" + " and evaluation" * bool(evaluation), notes)
    return figure


def draw_bars(axes: "Axes", rows: list[Row], look_of: dict[str, Look]) -> None:
    """Draw the training speeds, slowest at the bottom. A contender without a speed has its status instead of a bar."""
    relative = any(row["ratio_to_none"] for row in rows)
    column, form = ("ratio_to_none", ".2f") if relative else ("tokens_per_second", ",.0f")
    rows = sorted(rows, key=lambda row: row[column] or 0)
    colours = [look_of[row["contender"]].colour for row in rows]
    bars = axes.barh(range(len(rows)), [row[column] or 0 for row in rows], color=colours)
    words = [cell(row[column], form) if row[column] else row["status"][:40] for row in rows]
    axes.bar_label(bars, words, padding=4, fontsize=9.5)
    axes.set_yticks(range(len(rows)), [row["contender"] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12, y=0.02)
    if relative:
        axes.axvline(1, color=QUIET, linewidth=0.8, zorder=0.5)
    axes.set_xlabel("training speed relative to no positions" if relative else "training speed, tokens/s")
    axes.set_title(f"Training at {rows[0]['length']:,} tokens")


def draw_lines(axes: "Axes", rows: list[Row], look_of: dict[str, Look]) -> None:
    """Draw the evaluation speeds by length. Markers are filled for posexp and hollow for peers."""
    ends: dict[str, tuple[float, float]] = {}
    for name in dict.fromkeys(row["contender"] for row in rows):
        points = sorted((row["length"], row["tokens_per_second"]) for row in rows if row["contender"] == name)
        look = look_of[name]
        face = "white" if look is PEER else look.colour
        style = {"color": look.colour, "marker": look.marker, "markerfacecolor": face, "linestyle": look.dash}
        axes.plot(*zip(*points, strict=True), **style)
        ends[name] = points[-1]
    set_log_scale(axes, "x", base=2)
    set_log_scale(axes, "y")
    axes.set_xticks(sorted({row["length"] for row in rows}))
    axes.set_xlabel("length, tokens")
    axes.set_title("Evaluation, tokens/s")
    name_ends(axes, ends, look_of)
