"""The picture of protocols: the same weights under every protocol, one panel per curve. Sizes are in inches.

Lengths are multiples of the training length, and changes are those of perplexity against the own training length.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posexp.evaluation.contrasts import PROTOCOL
from posexp.evaluation.plan import CONTEXT, PROTOCOLS, WINDOW
from posexp.output.figure import new_figure, set_log_scale, shortened, write_heading
from posexp.output.style import COLOURS, INK, MARKERS, Look, stem
from posexp.report.curves import draw_margin
from posexp.report.finding import span
from posexp.report.metric import CHANGE, Value
from posexp.report.tables import Table, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST, MOST = 3, 8  # fewest protocols and lengths, most panels
WIDE, HIGH, LEGEND = 3.0, 2.6, 1.9  # of a panel and of the legend
OTHERS = [name for name in PROTOCOLS if name != PROTOCOL]
LOOKS = {PROTOCOL: Look(INK, "o", "-")} | {
    name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], "-") for i, name in enumerate(OTHERS)
}


@dataclass(frozen=True)
class Protocols:
    """The tables of each protocol that scores text by length, and the curves that two or more protocols measure."""

    tables: dict[str, list[Table]]

    @property
    def curves(self) -> list[str]:
        known = [curve for tables in self.tables.values() for table in tables for curve in table.curves]
        return [
            curve for curve in dict.fromkeys(known) if sum(1 for name in self.tables if self.points(name, curve)) > 1
        ]

    def table(self, protocol: str, curve: str) -> Table | None:
        """Return the first table of the protocol that has the curve; tables of the runs' own text come first."""
        return next((table for table in self.tables.get(protocol, []) if curve in table.curves), None)

    @property
    def drawn(self) -> list[Table]:
        """Return the tables that the picture draws."""
        found = [self.table(name, curve) for name in self.tables for curve in self.curves]
        return [table for table in found if table is not None]

    def points(self, protocol: str, curve: str) -> dict[float, Value]:
        """Return the changes of a curve by multiple of its training length; {} unless a longer length has one."""
        table = self.table(protocol, curve)
        if table is None:
            return {}
        trained = max(1, min(table.trained[curve]))
        found = {n / trained: one for n in table.lengths if (one := table.values.get((curve, n)))}
        return found if any(multiple > 1 for multiple in found) else {}

    def at(self, curve: str, multiple: float) -> dict[str, float]:
        """Return the change by protocol at a multiple of the training length."""
        points = {name: self.points(name, curve) for name in self.tables}
        return {name: found[multiple].value for name, found in points.items() if multiple in found}


def find_protocols(shown: list[Table]) -> Protocols | None:
    """Return the protocols of tables of changes, if three or more have three or more lengths."""
    tables: dict[str, list[Table]] = {}
    for table in shown:
        known = PROTOCOLS.get(table.protocol)
        if known and known.axis in (WINDOW, CONTEXT) and table.measure == CHANGE and not table.drawn_only:
            tables.setdefault(table.protocol, []).append(table)
    found = Protocols(tables)
    lengths = {length for tables in found.tables.values() for table in tables for length in table.lengths}
    return found if min(len(tables), len(lengths)) >= LEAST and found.curves else None


def disagreement(found: Protocols, curve: str) -> tuple[bool, float, float]:
    """Return whether protocols disagree on the sign of the change beyond 1 %, by how much, and where: the multiple."""
    multiples = {multiple for name in found.tables for multiple in found.points(name, curve)}
    last = max((multiple for multiple in multiples if len(found.at(curve, multiple)) > 1), default=1.0)
    changes = found.at(curve, last).values()
    levels = [CHANGE.level(change) for change in changes] or [0.0]
    return min(levels) < -1 and max(levels) > 1, max(levels) - min(levels), last


def draw_protocols(found: Protocols) -> "Figure":
    """Draw the curves on whose changes the protocols disagree most."""
    plain = [curve for curve in found.curves if curve == stem(curve)] or found.curves
    order = sorted(plain, key=lambda curve: disagreement(found, curve), reverse=True)[:MOST]
    columns = min(4, len(order) if len(order) < 4 else -(-len(order) // 2))
    rows = -(-len(order) // columns)
    figure = new_figure(WIDE * max(columns, 2) + LEGEND, HIGH * rows + 1.4)
    left, right = figure.subfigures(1, 2, width_ratios=[WIDE * max(columns, 2), LEGEND], squeeze=False)[0]
    panels = left.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    drawn = [name for name in LOOKS if any(found.points(name, curve) for curve in order)]
    for axes, curve in zip(panels.flat, order, strict=False):
        draw_panel(axes, found, curve, drawn)
    for axes in panels.flat[len(order) :]:
        axes.set_visible(False)
    multiples = sorted({n for name in drawn for curve in order for n in found.points(name, curve)})
    set_log_scale(panels[0, 0], "x", base=2)
    panels[0, 0].set_xticks(multiples, [f"{n:g}" for n in multiples])
    set_log_scale(panels[0, 0], "y", linear=CHANGE.linear, sign="+")
    for column in range(columns):
        lowest = panels[max(row for row in range(rows) if row * columns + column < len(order)), column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("length ÷ training length")
    left.supylabel("change of perplexity in percent", size="medium", color=INK)
    right.legend(*panels[0, 0].get_legend_handles_labels(), loc="center left")
    write_heading(figure, title(found, order[0]), [caption(found, order)])
    return figure


def draw_panel(axes: "Axes", found: Protocols, curve: str, protocols: list[str]) -> None:
    """Draw one line per protocol, that of same_targets thicker and on top."""
    draw_margin(axes)
    for name in protocols:
        points, look, own = found.points(name, curve), LOOKS[name], name == PROTOCOL
        ys = [one.value for one in points.values()]
        size, width, zorder = (6, 2.6, 4) if own else (4.5, 1.3, 3)
        marks: dict[str, Any] = {"markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.6}
        line: dict[str, Any] = {"color": look.colour, "linewidth": width, "zorder": zorder}
        axes.plot([*points], ys, marker=look.marker, label=name, **line, **marks)
    axes.set_title(shortened(curve), color=INK, weight="bold")


def title(found: Protocols, curve: str) -> str:
    flips, _, last = disagreement(found, curve)
    conclusion = "another conclusion" if flips else "another size of the change"
    where = f"{last:g} times its training length"
    return f"Same weights, another protocol, {conclusion}: {shortened(curve)} at {where}, {span(found.at(curve, last))}"


def caption(found: Protocols, order: list[str]) -> str:
    first = next(iter(found.tables.values()))[0]
    parts = [f"change against the own training length, {listed(first.train_lengths)} tokens", "grey: within 1 %"]
    left = [curve for curve in found.curves if curve not in order]
    parts += [f"{len(left)} curves omitted"] if left else []
    lost = [curve for curve in first.curves if curve not in found.curves and curve == stem(curve)]
    parts += [f"without values beyond it: {', '.join(map(shortened, lost))}"] if lost else []
    return " · ".join(parts)
