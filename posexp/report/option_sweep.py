"""A sweep over one number, such as train.lr: the loss of each scheme against the option, as a table and a picture."""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posexp.output.figure import name_ends, new_figure, set_log_scale, size_of, write_heading
from posexp.output.grid import Grid
from posexp.output.style import looks_of
from posexp.output.text import escape, one_line
from posexp.report.cell import Cell
from posexp.report.tables import Table, facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

# Curves that differ in their options have them in their labels: rope (train.lr=0.001).
LABEL = re.compile(r"(?P<scheme>.+) \((?P<option>[\w.]+)=(?P<value>-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\)")
LENGTH = "train.length"  # whose losses are of other contexts: longer ones are oracles


@dataclass(frozen=True)
class Sweep:
    """The cells of each scheme at the training length, by the value of the option."""

    option: str
    cells: dict[str, dict[float, Cell]]
    facts: str

    @property
    def title(self) -> str:
        return f"Loss at the training length by {self.option}"

    @property
    def note(self) -> str:
        return (
            f"Mean loss in nats per token over seeds, {self.facts}. Ranges are the lowest and the highest seed. "
            "An edge is the first or last value of a sweep."
        )

    @property
    def values(self) -> list[float]:
        return sorted({value for cells in self.cells.values() for value in cells})

    @property
    def log(self) -> bool:
        return 0 < 10 * self.values[0] < self.values[-1]

    def losses(self, scheme: str) -> dict[float, float]:
        """Return the mean loss over seeds by value of the option, in nats, where every seed has one."""
        cells = self.cells[scheme].items()
        return {value: cell.nll for value, cell in sorted(cells) if cell.nll is not None and not cell.failures}

    def best(self, scheme: str) -> float | None:
        losses = self.losses(scheme)
        return min(losses, key=losses.__getitem__, default=None)


def find_sweep(table: Table) -> Sweep | None:
    """Return the sweep if the curves of the table as trained differ in one numeric option beside their schemes."""
    options: set[str] = set()
    cells: dict[str, dict[float, Cell]] = {}
    for curve in table.curves:
        match = LABEL.fullmatch(curve)
        if " · " in curve:  # another window or a transform
            continue
        if not match or not math.isfinite(value := float(match["value"])):
            return None
        options.add(match["option"])
        if cell := table.cells.get((curve, min(table.trained[curve]))):
            cells.setdefault(match["scheme"], {})[value] = cell
    if len(options) != 1 or options == {LENGTH}:
        return None
    sweep = Sweep(options.pop(), cells, facts(table))
    return sweep if len(sweep.values) > 1 else None


def grid_of(sweep: Sweep) -> Grid:
    """Return the scheme, the loss at each value of the option, and the value with the lowest loss."""
    rows = []
    for scheme, cells in sweep.cells.items():
        best, values = sweep.best(scheme), sorted(cells)
        edge = " (edge)" if best in (values[0], values[-1]) else ""
        words = [words_of(cells.get(value)) for value in sweep.values]
        rows.append([one_line(scheme), *words, "–" if best is None else f"{best:g}{edge}"])
    return Grid([sweep.option, *(f"{value:g}" for value in sweep.values), "best"], rows, title=f"\n{sweep.title}")


def words_of(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell.nll is None or cell.failures:
        return cell.failure
    known = cell.spread and cell.low and cell.high
    return f"{cell.nll:.3f}" + (f"\n[{math.log(cell.low):.3f}, {math.log(cell.high):.3f}]" if known else "")  # type: ignore[arg-type]


def sweep_markdown(sweep: Sweep) -> str:
    return f"\n## {escape(sweep.title)}\n\n{escape(sweep.note)}\n\n{grid_of(sweep).markdown()}\n"


def print_sweep(sweep: Sweep, console: "Console") -> None:
    from rich.text import Text

    grid_of(sweep).show(console)
    console.print(Text(sweep.note, style="dim"))


def draw_sweep(sweep: Sweep) -> "Figure":
    """Draw one curve for each scheme, with a ring around its lowest loss and a bar over its seeds."""
    figure, look_of = new_figure(8.5, 5), looks_of(sweep.cells)
    axes = figure.subplots()
    ends = {}
    for scheme, cells in sweep.cells.items():
        look, losses = look_of[scheme], sweep.losses(scheme)
        size = size_of(look.marker)
        axes.plot(
            [*losses], [*losses.values()], color=look.colour, linestyle=look.dash, marker=look.marker, markersize=size
        )
        for value in losses:
            if cells[value].spread and (low := cells[value].low) and (high := cells[value].high):
                axes.vlines(value, math.log(low), math.log(high), color=look.colour, alpha=0.35, linewidth=4)
        best = sweep.best(scheme)
        if best is not None:
            axes.plot([best], [losses[best]], "o", markersize=15, markerfacecolor="none", markeredgecolor=look.colour)
            ends[scheme] = (max(losses), losses[max(losses)])
    if sweep.log:
        set_log_scale(axes, "x")
    if len(sweep.values) <= 8:
        axes.set_xticks(sweep.values, [f"{value:g}" for value in sweep.values])
    axes.set_xlabel(f"{one_line(sweep.option)}{' (log scale)' * sweep.log}")
    axes.set_ylabel("loss, nats per token")
    name_ends(axes, ends, look_of)
    write_heading(figure, sweep.title, [f"ring: lowest loss of a curve · {sweep.facts} · bar: range of the seeds"])
    return figure
