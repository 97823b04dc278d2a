"""The rows of a group as a pandas DataFrame, and the picture of such a frame."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np

from posexp.errors import Misuse
from posexp.evaluation.contrasts import Pairs, curve_name
from posexp.evaluation.group import Group
from posexp.evaluation.rows import NAMES, NEEDED, Row
from posexp.evaluation.verdicts import Place
from posexp.output.style import looks_of
from posexp.report.change import draw_headline
from posexp.report.finding import as_changes
from posexp.report.metric import PPL
from posexp.report.tables import tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

KINDS = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Row).items() if name in NAMES}
TEXTS = [name for name, kinds in KINDS.items() if str in kinds]
DTYPES = {name: "Int64" for name, kinds in KINDS.items() if int in kinds}
DTYPES |= {name: "float64" for name, kinds in KINDS.items() if float in kinds}
VERDICT = ("verdict", "effect", "effect_low", "effect_high", "effect_p")
COLUMNS = (*NAMES, "variant", *VERDICT)


def frame_of(group: Group, say: Callable[[str], None]) -> "DataFrame":
    """Return one line per row, with the columns of `Row`, its `variant`, and those of its verdict.

    A verdict is on rows of same_targets beyond the training length: its word, and the difference of the loss from that
    of the input cropped to the training length, in nats per token, with its 95 % interval and p. A missing text is "",
    a missing number NaN or NA.
    """
    from pandas import DataFrame

    rows = group.labelled()
    verdict_of = {verdict.place: verdict for verdict in Pairs(rows, group.curve_of, group.recipe_of).verdicts(say)}
    lines = []
    for row in rows:
        place = Place(curve_name(row, group.curve_of), row.length, row.targets_hash, row.stride)
        texts = {name: getattr(row, name) or "" for name in TEXTS}
        line: dict[str, Any] = {**row.values(), **texts, "variant": row.variant, "verdict": ""}
        if (verdict := verdict_of.get(place)) and not row.control:
            line["verdict"] = verdict.word
            if effect := verdict.cropped:
                line |= zip(VERDICT[1:], (effect.value, effect.low, effect.high, effect.p), strict=True)
        lines.append(line)
    dtypes = DTYPES | dict.fromkeys(VERDICT[1:], "float64")
    return DataFrame(lines, columns=list(COLUMNS)).astype(dtypes)


def rows_of(frame: "DataFrame") -> list[Row]:
    """Return the rows of a frame, or of part of one. Raises Misuse if a column is missing that every row has."""
    if missing := [name for name in ("run", *NEEDED) if name not in frame]:
        raise Misuse(f"the frame lacks the columns {', '.join(missing)}: keep those of posexp.rows")
    known = frame[[name for name in NAMES if name in frame]].astype(object)
    records = known.where(known.notna(), None).to_dict("records")
    return [Row.of({name: plain(value) for name, value in line.items()}) for line in records]


def plain(value: Any) -> Any:
    """Return a value of a frame as a row has it."""
    return value.item() if isinstance(value, np.generic) else None if value == "" else value


def draw_frame(frame: "DataFrame") -> "Figure":
    """Draw the headline of the rows as `posexp report` does. Raises Misuse if there is nothing to draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from posexp.output.styled import in_style

    rows = rows_of(frame)
    curve_of = {row.run: row.curve for row in rows if row.curve}
    pairs = Pairs(rows, curve_of, {row.run: row.recipe or "" for row in rows})
    shown = [table for table in tables(rows, curve_of, PPL, pairs.verdicts(), pairs.changes()) if not table.lacking]
    if not shown:
        raise Misuse("nothing to draw: the frame has no row with a perplexity")
    headline = replace(as_changes(shown[0]), measure=shown[0].measure)  # its levels stand beside the changes
    with in_style():
        figure = draw_headline(headline, looks_of(headline.curves))
        FigureCanvasAgg(figure).draw()  # matplotlib makes some parts only now, in the style of this moment
    return figure
