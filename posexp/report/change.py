"""The picture of the headline: the change of each curve against its own training length, and beside it the level.

Changes are paired by target, seed and document, so that their intervals are those of the claim. Intervals of levels are
wide because of differences between documents, which all curves share. Sizes are in inches.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from posexp.output.figure import new_figure, rendered
from posexp.output.style import Look
from posexp.report.curves import PLOT, draw_curves, draw_table, height_of, room_for_names
from posexp.report.metric import CHANGE
from posexp.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 3.6  # width of the panel with levels


def change_pictures(headline: Table, look_of: dict[str, Look]) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the headline, with levels alone if there are no paired changes, as for tasks."""
    changed = any(
        cell.change and length != min(headline.trained[curve]) for (curve, length), cell in headline.cells.items()
    )
    one, two = lambda: draw_curves([headline], look_of), lambda: draw_both(headline, look_of)
    return rendered(two if changed else one, headline.title)


def draw_both(headline: Table, look_of: dict[str, Look]) -> "Figure":
    table = replace(headline, measure=CHANGE)
    wide = PLOT + room_for_names([table])
    figure = new_figure(wide + LEVEL, height_of(table))
    left, right = figure.subfigures(1, 2, width_ratios=[wide, LEVEL], squeeze=False)[0]
    draw_table(left, table, look_of)
    draw_table(right, headline, look_of, big=False, title=headline.measure.title, named=False)
    return figure
