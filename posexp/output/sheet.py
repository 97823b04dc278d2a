"""A figure with a title, notes and a grid of panels. Sizes are in inches."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posexp.output.style import COLOURS, DASHES, QUIET, above, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE, ABOUT, NOTE = 13, 9.5, 9  # points
LINE = 1.35 / 72  # line height in inches per point of font size
LEFT, RIGHT, BELOW, BETWEEN = 0.85, 0.2, 0.65, 0.25


@dataclass(frozen=True)
class Picture:
    """A picture as PNG and SVG, with one row of numbers per point drawn."""

    png: bytes
    svg: bytes
    rows: list[dict[str, Any]]


def picture(draw: Callable[[], "Figure"], title: str, rows: list[dict[str, Any]]) -> Picture:
    """Render the figure of `draw`. Equal figures give equal bytes."""
    return Picture(*rendered(draw, title), rows)


def sheet(
    title: str, about: list[str], shape: tuple[int, int], size: tuple[float, float], over: float = 0.36
) -> tuple["Figure", list[list["Axes"]]]:
    """Return a figure and its panels, a grid of `shape` (rows, columns) with panels of `size` (width, height).

    Panels share their axes by row and column. `over` is the space above each row, for the names of the panels.
    """
    from matplotlib.figure import Figure

    (rows, columns), (wide, high) = shape, size
    width = LEFT + columns * (wide + BETWEEN) - BETWEEN + RIGHT
    heading: list[tuple[str, float]] = [(line, TITLE) for line in wrapped(title, width - LEFT, TITLE * 1.1)]
    heading += [(line, ABOUT) for part in about for line in wrapped(part, width - LEFT, ABOUT)]
    head = sum(points * LINE for _, points in heading) + 0.05
    height = head + rows * (over + high) + BELOW
    figure = Figure(figsize=(width, height))
    top = height
    for line, points in heading:
        own: dict[str, Any] = {"weight": "bold"} if points == TITLE else {"color": QUIET}
        figure.text(LEFT / width, top / height, line, size=points, va="top", **own)
        top -= points * LINE
    panels: list[list[Axes]] = []
    for row in range(rows):
        low = height - head - (row + 1) * (over + high)
        panels.append([])
        for column in range(columns):
            left = LEFT + column * (wide + BETWEEN)
            axes = figure.add_axes((left / width, low / height, wide / width, high / height))
            axes.tick_params(labelsize=NOTE, length=3, labelleft=column == 0, labelbottom=row == rows - 1)
            panels[-1].append(axes)
    return figure, panels


def wrapped(text: str, inches: float, points: float) -> list[str]:
    return textwrap.wrap(text, max(30, int(inches * 72 / (points * 0.545))), break_on_hyphens=False)


def trained_at(axes: "Axes", length: float, note: str = "") -> None:
    """Draw a vertical line at the training length, with `note` above it."""
    axes.axvline(length, color="#8a8a8a", linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
    if note:
        above(axes, note, 3, x=length, size=NOTE - 0.5, color=QUIET, ha="center")


def look(index: int) -> dict[str, Any]:
    """Return the colour and dash of line `index`."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}


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
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")
