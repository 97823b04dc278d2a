"""The forest plot: what was changed in one scheme, and what becomes of its change of perplexity. Sizes are in inches.

There is one row per configuration, and in it one marker per protocol.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posexp.evaluation.contrasts import PROTOCOL
from posexp.output.figure import ROW, new_figure, set_log_scale, shortened, write_heading
from posexp.output.style import GRID, stem
from posexp.report.by_protocol import LOOKS
from posexp.report.curves import draw_margin, draw_points
from posexp.report.finding import span
from posexp.report.metric import CHANGE, Value, percent, signed
from posexp.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 6  # more curves of a scheme than this are a forest
TIMES = 2  # the training length
MARK, WIDE, AROUND, LEGEND = 0.03, 8.0, 1.7, 1.9  # MARK: of each protocol, beside ROW of each curve


@dataclass(frozen=True)
class Forest:
    """The curves of the scheme `base`, and their changes in percent by protocol at `times` the training length.

    `seeds` is the range of the change over the seeds of `base` on the same targets, None with fewer than two.
    """

    base: str
    times: float
    changes: dict[str, dict[str, Value]]  # by curve and protocol
    seeds: tuple[float, float] | None

    @property
    def protocol(self) -> str:
        """The protocol of the title and the order: same_targets if it was measured, otherwise the first."""
        known = dict.fromkeys(name for found in self.changes.values() for name in found)
        return PROTOCOL if PROTOCOL in known else next(iter(known))


def find_forest(shown: list[Table]) -> Forest | None:
    """Return the forest of the scheme with the most curves in tables of changes; None unless it has more than LEAST."""
    shown = [table for table in shown if table.measure == CHANGE and not table.drawn_only]
    curves = dict.fromkeys(curve for table in shown for curve in table.curves)
    ((base, count),) = Counter(map(stem, curves)).most_common(1) or [("", 0)]
    lengths = [n / max(1, t.train_lengths[0]) for t in shown for n in t.lengths if n > t.train_lengths[0]]
    if count <= LEAST or not lengths:
        return None
    times = float(TIMES) if TIMES in lengths else max(lengths)
    changes: dict[str, dict[str, Value]] = {}
    seeds = None
    for table in shown:
        for curve in table.curves:
            length = round(times * min(table.trained[curve]))
            one = table.values.get((curve, length))
            if one is None or table.protocol not in LOOKS or stem(curve) != base:
                continue
            changes.setdefault(curve, {}).setdefault(table.protocol, one)
            if curve == base and table.protocol == PROTOCOL and seeds is None:
                seeds = range_over_seeds(table, curve, length)
    return Forest(base, times, changes, seeds) if len(changes) > LEAST else None


def range_over_seeds(table: Table, curve: str, length: int) -> tuple[float, float] | None:
    """Return the lowest and highest change in percent over the seeds of a curve, None with fewer than two."""
    first, last = (table.cells[curve, n].by_seed for n in (min(table.trained[curve]), length))
    found = [percent(last[seed] - first[seed]) for seed in last if seed in first]
    return (min(found), max(found)) if len(found) > 1 else None


def draw_forest(found: Forest) -> "Figure":
    """Draw the base on top, then the largest change first."""
    curves = sorted(found.changes, key=lambda curve: (curve != found.base, -order(found, curve), curve))
    protocols = [name for name in LOOKS if any(name in of for of in found.changes.values())]
    figure = new_figure(WIDE + LEGEND, AROUND + (ROW + MARK * len(protocols)) * len(curves))
    left, right = figure.subfigures(1, 2, width_ratios=[WIDE, LEGEND], squeeze=False)[0]
    axes = left.subplots()
    draw_margin(axes, "x")
    if found.seeds:
        axes.axvspan(*found.seeds, color="#bdbdbd", alpha=0.6, zorder=0.5)
    for i, name in enumerate(protocols):
        look = LOOKS[name]
        offset = 0.7 * ((i + 0.5) / len(protocols) - 0.5)
        points = {y + offset: of[name] for y, curve in enumerate(curves) if name in (of := found.changes[curve])}
        draw_points(axes, points, look.marker, look.colour, label=name)
    for y in range(1, len(curves)):
        axes.axhline(y - 0.5, color=GRID, linewidth=0.8, zorder=0.2)
    axes.set_yticks(range(len(curves)), [row_name(found.base, curve) for curve in curves])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(curves) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    set_log_scale(axes, "x", linear=CHANGE.linear, sign="+")
    axes.set_xlabel(f"change of perplexity at {found.times:g} times the training length in percent")
    right.legend(*axes.get_legend_handles_labels(), loc="center left")
    notes = ["light grey: within 1 %"]
    notes += [f"grey band: range over the seeds of {shortened(found.base)}, same_targets"] if found.seeds else []
    bounded = any(one.low is not None for of in found.changes.values() for one in of.values())
    notes += ["lines: 95 % over seeds and documents"] if bounded else []
    write_heading(figure, title(found), [" · ".join(notes)])
    return figure


def order(found: Forest, curve: str) -> float:
    of = found.changes[curve]
    return of[found.protocol].value if found.protocol in of else float("-inf")


def row_name(base: str, curve: str) -> str:
    """Return what was changed: the label without its scheme."""
    rest = curve.removeprefix(base).strip(" ·")
    return shortened(re.sub(r"^\(([^()]*)\)$", r"\1", rest) or base)


def title(found: Forest) -> str:
    name = found.protocol
    values = {row_name(found.base, curve): of[name].value for curve, of in found.changes.items() if name in of}
    seeds = f"; its seeds span {' to '.join(signed(one) + ' %' for one in found.seeds)}" if found.seeds else ""
    return f"{found.base} at {found.times:g} times the training length changes by {span(values)}{seeds}"
