"""How curves look: colours, markers and the style of the figure."""

from dataclasses import dataclass
from typing import Any

from posexp.report.rows import Table

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
