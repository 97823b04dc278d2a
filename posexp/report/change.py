"""The picture of the headline: the change of each curve against its own training length, and beside it the level there.

Changes are paired by target, seed and document, so that their intervals are those of the claim. Intervals of levels are
wide because of differences between documents, which all curves share. Sizes are in inches.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posexp.errors import Misuse
from posexp.output.figure import NOTE, new_figure, shortened, size_of, write_heading
from posexp.output.style import Look, looks_of
from posexp.report.curves import PLOT, draw_curves, draw_table, drawn, height_of, notes, room_for_names
from posexp.report.finding import finding
from posexp.report.metric import CHANGE
from posexp.report.tables import Table
from posexp.storage import untrusted

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

LEVEL = 2.2  # width of the panel with levels, without names
DASH = (0, (2, 2))
COLUMNS = ("curve", "length", "ppl", "source")


@dataclass(frozen=True)
class Reference:
    """A published curve: perplexities by length in tokens, of which the first is its training length."""

    curve: str
    source: str
    ppl: dict[int, float]

    def changes(self, trained: int) -> dict[float, float]:
        """Return its changes in percent by length, scaled so that its training length lies at `trained` tokens."""
        first = min(self.ppl)
        return {n * trained / first: 100 * (ppl / self.ppl[first] - 1) for n, ppl in sorted(self.ppl.items())}


def read_references(path: Path) -> list[Reference]:
    """Return the published curves of a CSV file with COLUMNS; [] without a file. Raises Misuse if it is invalid."""
    if not path.is_file():
        return []
    found: dict[tuple[str, str], dict[int, float]] = {}
    try:
        for row in csv.DictReader(io.StringIO(untrusted.read_bytes(path).decode(), newline="")):
            length, ppl = int(row["length"]), float(row["ppl"])
            if length < 1 or not 0 < ppl < 1e300:
                raise ValueError(f"length {length}, ppl {ppl}")
            found.setdefault((row["curve"], row["source"]), {})[length] = ppl
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misuse(f"{path} must have the columns {', '.join(COLUMNS)} with positive numbers: {error}") from error
    return [
        Reference(untrusted.visible(curve), untrusted.visible(source), ppl) for (curve, source), ppl in found.items()
    ]


def draw_headline(
    headline: Table, look_of: dict[str, Look], subject: str = "", references: Sequence[Reference] = ()
) -> "Figure":
    """Draw the changes, and beside them the levels at the training length, or levels alone, as for tasks."""
    changed = {key for key, cell in headline.cells.items() if cell.change}
    if all(length == min(headline.trained[curve]) for curve, length in changed):
        return draw_curves([headline], look_of)
    table = replace(headline, measure=CHANGE)
    wide = PLOT + room_for_names([table])
    level = LEVEL + 0.07 * max(len(shortened(curve)) for curve in table.curves)
    figure = new_figure(wide + level, height_of(table))
    left, right = figure.subfigures(1, 2, width_ratios=[wide, level], squeeze=False)[0]
    trained = min(table.train_lengths)
    looks = looks_of([*look_of, *(one.curve for one in references)])
    extent = [length for length in table.lengths if length >= trained]
    shown = [(one, {n: change for n, change in one.changes(trained).items() if n <= max(extent)}) for one in references]
    lowest = min((change for _, changes in shown for change in changes.values()), default=None)
    axes = draw_table(left, table, look_of, lowest)
    for one, changes in shown:
        axes.plot([*changes], [*changes.values()], color=looks[one.curve].colour, linestyle=DASH, linewidth=1.2)
    draw_levels(right, headline, look_of)
    curves_of: dict[str, list[str]] = {}
    for one in references:
        curves_of.setdefault(one.source, []).append(one.curve)
    sources = [
        f"short dashes: {', '.join(names)} of {source}, at multiples of its length"
        for source, names in curves_of.items()
    ]
    write_heading(figure, finding(headline, subject), [" · ".join([table.protocol, *notes(table), *sources])])
    return figure


def draw_levels(part: "FigureBase", table: Table, look_of: dict[str, Look]) -> None:
    """Draw the value of each curve at its training length, best on top, with the range of its seeds."""
    cells = {curve: (curve, min(table.trained[curve])) for curve in table.curves}
    known = {curve: table.values[key] for curve, key in cells.items() if key in table.values}
    order = sorted(known, key=lambda curve: known[curve].value, reverse=table.measure.high_is_good)
    axes = part.subplots()
    for y, curve in enumerate(order):
        value, look = known[curve], look_of[curve]
        if table.cells[cells[curve]].spread and value.low is not None:
            axes.plot([drawn(value.low), drawn(value.high)], [y, y], color=look.colour, linewidth=3, alpha=0.4)
        marks: dict[str, Any] = {"markersize": size_of(look.marker), "markeredgecolor": "white", "color": look.colour}
        axes.plot([drawn(value.value)], [y], look.marker, **marks)
    axes.set_yticks(range(len(order)), map(shortened, order), size=NOTE)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{table.measure.axis}\nat the training length")
    axes.grid(visible=False, axis="y")
