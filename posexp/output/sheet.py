"""A sheet of panels in the house's style: a title that says what is seen, what it is of, and panels in a grid.

Sizes are inches.
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posexp.output.style import COLOURS, DASHES, QUIET, above, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE, ABOUT, NOTE = 13, 9.5, 9  # points
LINE = 1.35 / 72  # inches of height of a line of text, per point
LEFT, RIGHT, BELOW, BETWEEN = 0.85, 0.2, 0.65, 0.25


@dataclass(frozen=True)
class Picture:
    """A picture in two formats, and the numbers it shows: one row per point."""

    png: bytes
    svg: bytes
    rows: list[dict[str, Any]]


def picture(draw: Callable[[], "Figure"], title: str, rows: list[dict[str, Any]]) -> Picture:
    """What `draw` draws; the same drawing gives the same bytes."""
    return Picture(*rendered(draw, title), rows)


def sheet(
    title: str, about: list[str], shape: tuple[int, int], size: tuple[float, float], over: float = 0.36
) -> tuple["Figure", list[list["Axes"]]]:
    """A figure with (rows, columns) of panels, each `size` wide and high, that share their axes by row and column.

    `over` is the room above each row, for its panels' names.
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
    """The vertical line at the training length, with `note` over it."""
    axes.axvline(length, color="#8a8a8a", linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
    if note:
        above(axes, note, 3, x=length, size=NOTE - 0.5, color=QUIET, ha="center")


def look(index: int) -> dict[str, Any]:
    """Colour and dash of line `index`."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}


def ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 5] as "1–3, 5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def short(value: float) -> str:
    """Three digits or all before the point, with a true minus sign."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")
