"""How pictures look: colours, markers, the style of a figure, and its files."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart by colour-blind readers, without the yellow that vanishes on white; the last three
# are Tol's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5488B", "#E69F00", "#56B4E9", "#4D4D4D", "#332288", "#882255", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "*", "<", "p", ">", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
# With this salt all schemes of configs/ look different, and the ten of most papers have a colour each.
SALT = 10063
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


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """The look of each label, in every report the same: its colour is of the label alone, and so are its marker and
    dashes unless another label has exactly its look. Then the later one in order takes the next marker or dashes that
    are free.
    """
    found: dict[str, Look] = {}
    taken: set[tuple[int, int]] = set()
    lines = len(MARKERS) * len(DASHES)
    for label in sorted(set(labels)):
        number = int.from_bytes(sha256(f"{SALT}{label}".encode(errors="surrogatepass")).digest()[:8], "big")
        line, colour = divmod(number, len(COLOURS))
        wanted = [(colour, (line + step) % lines) for step in range(lines)]
        colour, line = next((look for look in wanted if look not in taken), wanted[0])
        taken.add((colour, line))
        found[label] = Look(COLOURS[colour], MARKERS[line % len(MARKERS)], DASHES[line // len(MARKERS)])
    return found


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


def above(axes: "Axes", text: str, points: float, x: float | None = None, **look: Any) -> None:
    """`text` that many points above the panel: at its left edge, or over the data coordinate `x`."""
    at, coordinates = ((0.0, 1.0), axes.transAxes) if x is None else ((x, 1.0), axes.get_xaxis_transform())
    axes.annotate(text, at, xycoords=coordinates, xytext=(0, points), textcoords="offset points", **look)


def wrapped(text: str, letters: float) -> list[str]:
    """`text` in lines of at most that many letters, broken between its parts."""
    lines: list[str] = []
    for part in text.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines else part
        lines = [*lines[:-1], joined] if len(joined) <= letters else [*lines, part]
    return lines
