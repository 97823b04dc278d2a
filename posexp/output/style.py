"""The style of figures, and the colour, marker and dash of every curve."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from posexp.config.sections import config_dir

# A family of schemes has one hue in three shades. Colour-blind readers can distinguish the first shades.
# All shades have a contrast of at least 2.5 on white and on the dark page.
# A scheme's YAML chooses one by its line `# look: <family> <place>`.
FAMILIES = {
    "none": ("#6A6A6A", "#8E8E8E", "#5E6470"),
    "added": ("#D55E00", "#E08C00", "#C4314B"),
    "rotary": ("#0072B2", "#4BA3E3", "#5B5BD6"),
    "bias": ("#009E73", "#7A9A01", "#236B30"),
    "content": ("#D878C0", "#8E5BD0", "#A03070"),
    "wrapper": ("#C0A000", "#8C6D31", "#B07A50"),
}
COLOURS = tuple(colour for shades in zip(*FAMILIES.values(), strict=True) for colour in shades)
MARKERS = ("p", "h", "s", "D", "o", "^", "v", "*", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
INK, QUIET, STRIP = "#222222", "#6b6b6b", "#f4f4f4"
EDGE, GRID = "#9a9a9a", "#e8e8e8"
REFERENCE: dict[str, Any] = {"color": "#8a8a8a", "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 1.5}
VERDICTS = {  # the colours of words
    **{"uses": "#009E73", "ignores": "#0072B2", "unchanged": "#0072B2", "no headroom": "#56B4E9"},
    **{"degrades": "#E69F00", "collapses": "#B2182B", "unclear": QUIET, "too few seeds": QUIET},
}
STYLE: dict[str, Any] = {
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), EDGE),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.formatter.useoffset", "legend.frameon"), False),
    **dict.fromkeys(("axes.labelsize", "axes.titlesize"), "medium"),
    **{"font.family": "DejaVu Sans", "font.size": 10.5, "axes.titlelocation": "left", "axes.axisbelow": True},
    **{"axes.grid": True, "axes.grid.which": "major", "grid.color": GRID, "grid.linewidth": 0.8},
    "text.parse_math": False,  # a "$" in a label is a dollar sign
    **{"svg.fonttype": "none", "svg.hashsalt": "posexp"},  # text is stored as text, not as paths
}


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str
    dash: Any


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """Return the look of each label.

    A label that begins with the name of a scheme has that scheme's colour and marker. Any other label has those of the
    hash of its part before " (" or " · ". They do not depend on the other labels. Labels that share both differ by
    dash, and beyond four by marker.
    """
    known = dict(scheme_looks())
    found: dict[str, Look] = {}
    count: Counter[tuple[str, int]] = Counter()
    for label in sorted(set(labels), key=lambda label: (label not in known, label)):
        name = stem(label)
        look = known.get(re.split(r"\W", name)[0]) or hashed_look(name)
        further, dash = divmod(count[look], len(DASHES))
        count[look] += 1
        colour, marker = look
        found[label] = Look(colour, MARKERS[(marker + further) % len(MARKERS)], DASHES[dash])
    return found


def stem(label: str) -> str:
    """Return the label without its options in parentheses, its window and its transform."""
    return re.split(r" \(| · ", label)[0]


def family_of(label: str) -> str:
    """Return the family of the scheme that a label begins with, "" for other labels."""
    look = dict(scheme_looks()).get(re.split(r"\W", stem(label))[0])
    return next((family for family, shades in FAMILIES.items() if look and look[0] in shades), "")


def scheme_looks() -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield (name, (colour, index of the marker)) of every scheme whose YAML names a known family."""
    families = list(FAMILIES)
    for path in sorted((config_dir() / "scheme").glob("*.yaml")):
        found = re.search(r"^# look: (\w+) (\d+)$", path.read_text(), re.MULTILINE)
        if found and found[1] in FAMILIES:
            place = int(found[2]) - 1
            shades = FAMILIES[found[1]]
            yield path.stem, (shades[place % len(shades)], (2 * families.index(found[1]) + place) % len(MARKERS))


def hashed_look(label: str) -> tuple[str, int]:
    number = int.from_bytes(sha256(label.encode(errors="surrogatepass")).digest()[:8], "big")
    marker, colour = divmod(number, len(COLOURS))
    return COLOURS[colour], marker % len(MARKERS)
