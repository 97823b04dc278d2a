"""Figures, laid out by matplotlib: headings, axes of numbers, and names at the ends of curves.

Sizes are in inches, those of text in points.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posexp.output.style import QUIET, Look
from posexp.output.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, FigureBase

TITLE, NOTE = 13.5, 9.0
DPI = 150
ROW = 0.25  # height of a name at the end of a curve
MAX_NAME = 48  # characters of a name in a figure
LARGEST = 1e200  # matplotlib's axes end near 1e308


@dataclass(frozen=True)
class Picture:
    """A picture as PNG and SVG, with one row of numbers per point drawn."""

    png: bytes
    svg: bytes
    rows: list[dict[str, Any]]


def rendered(draw: Callable[[], "Figure"], title: str) -> tuple[bytes, bytes]:
    """Return (PNG, SVG) of the figure that `draw` creates in this style. Equal figures give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    from posexp.output.styled import in_style

    png, svg = io.BytesIO(), io.BytesIO()
    with in_style():
        figure = draw()
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        figure.set_layout_engine("none")  # the layout is kept
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Title": title})
    return png.getvalue(), svg.getvalue()


def new_figure(width: float, height: float) -> "Figure":
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from posexp.output.styled import StyledFigure

    return StyledFigure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))


def write_heading(figure: "FigureBase", title: str, notes: list[str], size: float = TITLE) -> None:
    """Write the title above the panels and the notes below them, broken to the width of the figure."""
    width = figure.bbox.width / figure.dpi  # type: ignore[attr-defined]
    figure.suptitle(wrapped(title, width, 1.1 * size, facts=False), x=0.01, ha="left", size=size, weight="bold")
    words = "\n".join(wrapped(note, width, NOTE) for note in notes)
    figure.supxlabel(words, x=0.01, ha="left", size=NOTE, color=QUIET)


def wrapped(text: str, inches: float, points: float, facts: bool = True) -> str:
    """Break a text between words, or between the `facts` of a list with " · " between them."""
    if facts and " · " in text:
        text = text.replace(" ", "\xa0").replace("\xa0·\xa0", "\xa0· ")
    text = text.replace(" %", "\xa0%")
    broken = textwrap.fill(text, max(30, int(inches * 72 / (points * 0.56))), break_on_hyphens=False)
    return broken.replace("\xa0", " ")


def set_log_scale(axes: "Axes", which: str, base: int = 10, linear: float | None = None, sign: str = "") -> None:
    """Make an axis of a panel that has been drawn logarithmic, and linear within ±`linear`, with plain numbers.

    Positive numbers have `sign` in front.
    """
    from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator, SymmetricalLogLocator

    axis: Axis = getattr(axes, f"{which}axis")
    options: dict[str, Any] = {} if linear is None else {"linthresh": linear}
    getattr(axes, f"set_{which}scale")("symlog" if options else "log", base=base, **options)
    axes.autoscale_view(scalex=which == "x", scaley=which == "y")
    low, high = getattr(axes, f"get_{which}lim")()
    decades = (
        math.log10(high / low) if linear is None else sum(math.log10(max(1, end / linear)) for end in (high, -low))
    )
    subs = [1, 2, 5] if base == 10 and decades < (1.3 if which == "x" and linear else 3) else [1]
    locator: Locator = LogLocator(base, subs=subs)
    if linear is not None:
        locator = SymmetricalLogLocator(base=base, linthresh=linear, subs=subs)
    elif base == 10 and decades < 1:
        locator = MaxNLocator(8, steps=[1, 2, 2.5, 5, 10])
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, place: plain(f"{value:{sign if value else ''},.6g}"))


def name_ends(
    axes: "Axes", ends: Mapping[str, tuple[float, float]], look_of: dict[str, Look], words: dict[str, str] | None = None
) -> None:
    """Write each curve's name or `words` at the right, near its end (x, y), with a leader if it reaches the last x."""
    from matplotlib.collections import LineCollection
    from matplotlib.transforms import offset_copy

    figure: Any = axes.get_figure(root=True)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # heights stay true
    to_panel = axes.transData + axes.transAxes.inverted()
    place_of = {curve: tuple(to_panel.transform(end).tolist()) for curve, end in ends.items()}
    order = sorted(ends, key=lambda curve: (-place_of[curve][1], curve))
    step = ROW / (axes.get_window_extent().height / figure.dpi)
    last = max((x for x, _ in ends.values()), default=0.0)
    heights = dict(zip(order, spread_heights([place_of[curve][1] for curve in order], step), strict=True))
    led = [curve for curve in order if ends[curve][0] == last]

    def right_by(points: float) -> Any:
        return offset_copy(axes.transAxes, figure, x=points, units="points")

    leaders = LineCollection(
        [[place_of[curve], (1, heights[curve])] for curve in led],
        colors=[look_of[curve].colour for curve in led],
        linewidths=0.9,
        transform=right_by(8),
        clip_on=False,
    )
    axes.add_collection(leaders, autolim=False)
    for curve, height in heights.items():
        look = look_of[curve]
        text = shortened((words or {}).get(curve, curve))
        axes.text(1, height, text, transform=right_by(28), va="center")
        mark: dict[str, Any] = {"transform": right_by(20), "clip_on": False, "markeredgecolor": "white"}
        axes.plot([1], [height], look.marker, color=look.colour, markersize=size_of(look.marker), **mark)


def shortened(text: str) -> str:
    """Return a name on one line, without its middle if it is longer than MAX_NAME."""
    text = one_line(text)
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 13]}…{text[-12:]}"


def spread_heights(heights: list[float], step: float) -> list[float]:
    """Return descending heights at least `step` apart, as close as possible below the given ones, none below 0."""
    found: list[float] = []
    for index, height in enumerate(heights):
        ceiling = found[-1] - step if found else height
        found.append(max(min(height, ceiling), (len(heights) - 1 - index) * step))
    return found


def size_of(marker: str) -> float:
    return 10 if marker == "*" else 7


def ranges(numbers: list[int]) -> str:
    """Return sorted numbers as ranges: [1, 2, 3, 5] gives "1–3, 5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def short(value: float) -> str:
    """Format a number with three significant digits, or as an integer from 1000 on, with a true minus sign."""
    return plain(f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}")


def plain(text: str) -> str:
    return text.replace("-", "−").replace("e+0", "e").replace("e+", "e")
