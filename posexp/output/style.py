"""The style of pictures: colours, markers, dashes, and rendering to PNG and SVG."""

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


# Okabe and Ito's palette for colour-blind readers, without yellow, which is invisible on white. The last three colours
# are from Tol's palette.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5488B", "#E69F00", "#56B4E9", "#4D4D4D", "#332288", "#882255", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "*", "<", "p", ">", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
# With this salt all schemes in configs/ look different, and the ten most common ones have distinct colours.
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
    "svg.fonttype": "none",  # text is stored as text, not as paths
    "svg.hashsalt": "posexp",
}


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str
    dash: Any


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """Return the look of each label, derived from a hash of the label so that it is the same in every report.

    Of two labels with the same look, the later one in sorted order takes the next free marker or dash.
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
    """Return (PNG, SVG) of the figure that `draw` creates in this style. Equal figures give equal bytes."""
    import warnings

    from matplotlib import style

    png, svg = io.BytesIO(), io.BytesIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the font lacks some scripts
        figure = draw()
        tight: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.2, "facecolor": "white"}
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None}, **tight)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Title": title}, **tight)
    return png.getvalue(), svg.getvalue()


def above(axes: "Axes", text: str, points: float, x: float | None = None, **look: Any) -> None:
    """Write `text` that many points above the panel, at its left edge or above the data coordinate `x`."""
    at, coordinates = ((0.0, 1.0), axes.transAxes) if x is None else ((x, 1.0), axes.get_xaxis_transform())
    axes.annotate(text, at, xycoords=coordinates, xytext=(0, points), textcoords="offset points", **look)


def wrapped(text: str, letters: float) -> list[str]:
    """Split `text` into lines of at most `letters` characters, breaking only at " · "."""
    lines: list[str] = []
    for part in text.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines else part
        lines = [*lines[:-1], joined] if len(joined) <= letters else [*lines, part]
    return lines
