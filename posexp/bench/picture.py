"""The picture of a bench: bars of training speed and lines of evaluation speed. Sizes are in inches."""

from typing import TYPE_CHECKING

from posexp.bench.rows import Row
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
    figure = new_figure(14 if evaluation else 8, max(MIN_HEIGHT, ROW * 1.15 * len(training) + 1.6))
    look_of = looks_of(row["contender"] for row in rows) | {row["contender"]: PEER for row in rows if is_peer(row)}
    panels = figure.subplots(1, 1 + bool(evaluation), squeeze=False).flat
    draw_bars(panels[0], training, look_of)
    if evaluation:
        draw_lines(panels[1], evaluation, look_of)
    grey = [" · grey, hollow: other libraries"] if any(map(is_peer, rows)) else []
    write_heading(figure, "Speed of training" + " and evaluation" * bool(evaluation), ["".join([machine, *grey])])
    return figure


def is_peer(row: Row) -> bool:
    return bool(row["kind"] == "peer")


def draw_bars(axes: "Axes", rows: list[Row], look_of: dict[str, Look]) -> None:
    """Draw the training speeds, slowest at the bottom. A contender without a speed has its status instead of a bar."""
    ordered = sorted(rows, key=lambda row: row["ratio_to_none"] or row["tokens_per_second"] or 0)
    relative = any(row["ratio_to_none"] for row in rows)
    values = [row["ratio_to_none"] if relative else row["tokens_per_second"] for row in ordered]
    names = [row["contender"] for row in ordered]
    bars = axes.barh(
        range(len(names)), [value or 0 for value in values], color=[look_of[name].colour for name in names]
    )
    form = "{:.2f}" if relative else "{:,.0f}"
    words = [form.format(v) if v else row["status"][:40] for v, row in zip(values, ordered, strict=True)]
    axes.bar_label(bars, words, padding=4, fontsize=9.5)
    axes.set_yticks(range(len(names)), names)
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
        points = sorted(
            (row["length"], row["tokens_per_second"], is_peer(row)) for row in rows if row["contender"] == name
        )
        xs, ys, peers = zip(*points, strict=True)
        look = look_of[name]
        face = "white" if peers[0] else look.colour
        axes.plot(xs, ys, color=look.colour, marker=look.marker, markerfacecolor=face, linestyle=look.dash)
        ends[name] = points[-1][:2]
    set_log_scale(axes, "x", base=2)
    set_log_scale(axes, "y")
    axes.set_xticks(sorted({row["length"] for row in rows}))
    axes.set_xlabel("length, tokens")
    axes.set_title("Evaluation, tokens/s")
    name_ends(axes, ends, look_of)
