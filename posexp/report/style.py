"""How pictures look: colours, markers, the style of a figure, and its files."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posexp.report.rows import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers, without the yellow that vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5488B", "#E69F00", "#56B4E9", "#4D4D4D")
MARKERS = ("o", "s", "^", "D", "v", "*", "<", "p", ">", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
INK, QUIET = "#222222", "#6b6b6b"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a label is a dollar sign
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9a9a",
    "axes.labelcolor": INK,
    "xtick.color": "#9a9a9a",
    "ytick.color": "#9a9a9a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.which": "major",
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text: searchable and small
    "svg.hashsalt": "posexp",
}


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str
    dash: Any


def looks(shown: list[Table]) -> dict[str, Look]:
    """The look of each curve, the same in every panel: given out along the sorted labels."""
    curves = sorted({curve for table in shown for curve in table.curves})
    return {
        curve: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i // len(COLOURS) % len(DASHES)])
        for i, curve in enumerate(curves)
    }


def size_of(marker: str) -> float:
    return 10 if marker == "*" else 7


def rendered(draw: Callable[[], "Figure"], title: str) -> tuple[bytes, bytes]:
    """(PNG, SVG) of the figure that `draw` makes in this style; the same figure gives the same bytes."""
    import warnings

    from matplotlib import style

    png, svg = io.BytesIO(), io.BytesIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a label in a script the font lacks
        figure = draw()
        tight: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.2, "facecolor": "white"}
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None}, **tight)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Title": title}, **tight)
    return png.getvalue(), svg.getvalue()
