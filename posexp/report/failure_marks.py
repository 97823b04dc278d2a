"""The strip at the top of a panel, which marks missing values. Sizes are in inches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posexp.output.style import QUIET
from posexp.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.27  # height of a row
STRIP = "#f4f4f4"


@dataclass(frozen=True)
class Failures:
    """The row of one curve in the strip: a × at each of `xs`, and `words` before, after or above the marks."""

    curve: str
    xs: list[float]
    words: str
    place: str  # before, after or above


def failures_of(
    table: Table, curve: str, base: float, size: float, inches: Callable[[float], float], wide: float
) -> Failures:
    """Return a curve's row. `inches` maps an x to its distance from the left edge of a panel of `wide` inches."""
    found = [(n + base, cell) for n in table.lengths if (cell := table.cells.get((curve, n))) and cell.failures]
    xs = [x for x, _ in found]
    words = "; ".join(dict.fromkeys(cell.failure for _, cell in found))
    need = len(words) * size / 72 * 0.6 + 0.15
    place = "before" if inches(xs[0]) > need else "after" if wide - inches(xs[-1]) > need else "above"
    return Failures(curve, xs, words, place)


def draw_failures(axes: "Axes", failure: Failures, y: float, colour: str, size: float) -> None:
    """Draw one row of the strip at height `y`."""
    xs, across = failure.xs, axes.get_xaxis_transform()
    mark: dict[str, Any] = {"color": colour, "markersize": 7, "markeredgewidth": 2, "clip_on": False, "zorder": 4}
    axes.plot(xs, [y] * len(xs), "x", transform=across, **mark)
    x, offset, side = {
        "before": (xs[0], (-8, 0), "right"),
        "after": (xs[-1], (8, 0), "left"),
        "above": (xs[0], (-4, 11), "left"),
    }[failure.place]
    look: dict[str, Any] = {"color": QUIET, "size": size, "va": "center_baseline", "ha": side, "zorder": 4}
    look["bbox"] = {"facecolor": STRIP, "edgecolor": "none", "pad": 0.5}  # covers the line of a training length
    axes.annotate(failure.words, (x, y), xycoords=across, xytext=offset, textcoords="offset points", **look)


def failing(table: Table) -> list[str]:
    """Return the curves that lack a value at some length."""
    return sorted({curve for (curve, _), cell in table.cells.items() if cell.failures})
