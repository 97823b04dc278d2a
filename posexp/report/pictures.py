"""The pictures of a report, each of which answers one question.

curves: how does perplexity change with length? ranking: the same for curves that are too many to follow.
protocols: does the protocol decide the answer? windows: what does another attention window, or a transform at one
length, change? forest: which option of a scheme matters? others: tables of other quantities. sweep: which value of a
number is best?
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from posexp.evaluation.contrasts import Pairs
from posexp.output.figure import rendered
from posexp.output.style import looks_of
from posexp.report import by_protocol, change, forest, option_sweep, ranking, windows
from posexp.report.curves import draw_curves
from posexp.report.finding import as_changes
from posexp.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CURVES = 12  # that are readable as lines
NAMES = ("curves", "ranking", "protocols", "windows", "forest", "others", "sweep")
FILES = {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}


def draw(
    shown: list[Table],
    pairs: Pairs | None = None,
    sweep: option_sweep.Sweep | None = None,
    subject: str = "",
    references: Sequence[change.Reference] = (),
) -> dict[str, bytes]:
    """Return the pictures of the tables by file name, a part of FILES. Equal input gives equal bytes."""
    look_of = looks_of(curve for table in shown for curve in table.curves)
    changes = [as_changes(table) for table in shown]
    found: dict[str, tuple[str, Callable[[], Figure]]] = {}  # the title of the SVG, and what draws it
    tree, protocols = forest.find_forest(changes), by_protocol.find_protocols(changes)
    if pairs_of_windows := windows.find_windows(changes[0]):
        title = "Change of perplexity as trained and changed"
        found["windows"] = title, partial(windows.draw_windows, changes[0], pairs_of_windows, look_of)
    headline = without(shown[0], {curve for _, curve in pairs_of_windows})
    in_forest = set(tree.changes) if tree else set()
    if len(headline.curves) > MAX_CURVES:
        found["ranking"] = changes[0].title, partial(ranking.draw_ranking, changes[0], pairs, subject)
    elif len(headline.lengths) > 2 or not in_forest.issuperset(headline.curves):
        draw_headline = partial(change.draw_headline, headline, look_of, subject, references)
        found["curves"] = headline.title, draw_headline
    if protocols:
        found["protocols"] = "Change of perplexity by protocol", partial(by_protocol.draw_protocols, protocols)
    if tree:
        found["forest"] = forest.title(tree), partial(forest.draw_forest, tree)
    told = {id(table) for table in protocols.drawn} if protocols else set()
    others = [
        table
        for table, same in zip(shown[1:], changes[1:], strict=True)
        if len(table.curves) <= MAX_CURVES and not in_forest.issuperset(table.curves) and id(same) not in told
    ]
    if others:
        found["others"] = others[0].title, partial(draw_curves, others, look_of)
    if sweep:
        found["sweep"] = sweep.title, partial(option_sweep.draw_sweep, sweep)
    drawn = {name: rendered(picture, title) for name, (title, picture) in found.items()}
    return {f"{name}.{kind}": both[i] for name, both in drawn.items() for i, kind in enumerate(("png", "svg"))}


def without(table: Table, hidden: set[str]) -> Table:
    """Return the table without some of its curves."""
    curves = tuple(curve for curve in table.curves if curve not in hidden)
    cells = {key: cell for key, cell in table.cells.items() if key[0] in curves}
    return replace(table, curves=curves, cells=cells)
