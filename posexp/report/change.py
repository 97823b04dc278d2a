"""The picture of the headline: the change of each curve against its own training length, and beside it the level.

Changes are paired by target, seed and document, so that their intervals are those of the claim. Intervals of levels are
wide because of differences between documents, which all curves share. Sizes are in inches.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from posexp.output.style import Look, rendered
from posexp.report.curves import ABOVE, BELOW, LEFT, PLOT, draw_curves, draw_panel, name_curves
from posexp.report.failure_marks import ROW, failing
from posexp.report.metric import CHANGE
from posexp.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES, LEVEL = 2.6, 3.1  # widths of the legend and of the panel with levels


def pictures(headline: Table, look_of: dict[str, Look]) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the headline, with levels alone if there are no paired changes, as for tasks."""
    changed = any(
        cell.change and length != min(headline.trained[curve]) for (curve, length), cell in headline.cells.items()
    )
    one, two = lambda: draw_curves([headline], look_of), lambda: draw_both(headline, look_of)
    return rendered(two if changed else one, headline.title)


def draw_both(headline: Table, look_of: dict[str, Look]) -> "Figure":
    from matplotlib.figure import Figure

    table = replace(headline, measure=CHANGE)
    look_of = {curve: look for curve, look in look_of.items() if curve in headline.curves}
    names = max(NAMES, 1.5 + 0.1 * max(map(len, look_of)))  # includes the tick labels of the second panel
    wide, high = LEFT + PLOT + names + LEVEL, max(4.3, ROW * (len(look_of) + 3), ROW * 3 * len(failing(table)))
    height = ABOVE + high + BELOW
    figure = Figure(figsize=(wide, height))
    change = figure.add_axes((LEFT / wide, BELOW / height, PLOT / wide, high / height))
    ends = draw_panel(change, table, look_of, PLOT, high, True)
    change.axhspan(-CHANGE.level(1), CHANGE.level(1), color="#f0f0f0", zorder=0.3)
    change.axhline(0, color="#8a8a8a", linewidth=1, zorder=1.4)
    name_curves(change, look_of, ends, high, bool(failing(table)))
    level = figure.add_axes(((LEFT + PLOT + names) / wide, BELOW / height, LEVEL / wide, high / height))
    draw_panel(level, headline, look_of, LEVEL, high, False, beside=True)
    return figure
