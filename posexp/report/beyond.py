"""Verdicts on context beyond the training length, in words and percent, and as a CSV file."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from posexp.report.rows import Table

if TYPE_CHECKING:
    from posexp.evaluation.statistics import Estimate
    from posexp.evaluation.verdicts import Usable, Verdict

MARKS = {"uses": "▼", "ignores": "=", "breaks": "▲", "unclear": "?"}
LEGEND = "What is beyond the training length: ▼ used, = ignored, ▲ breaks the model, ? unclear."
HEADING = "Context beyond the training length"
CSV = (
    *("curve", "length", "word", "control", "difference", "low", "high", "p"),
    *("shuffled", "shuffled_low", "shuffled_high", "seeds", "documents"),
)


def marked(shown: list[Table], verdicts: "Sequence[Verdict]") -> list[Table]:
    """The tables with the verdicts on their cells: each in the table of the targets it was passed on, and in none
    where that has other targets besides, as the cell may be of those."""
    from posexp.evaluation.verdicts import PROTOCOL

    word_of = {(v.curve, v.length, v.targets_hash, v.stride): v.word for v in verdicts}

    def words(table: Table) -> dict[tuple[str, int], str]:
        if table.protocol != PROTOCOL or len(table.targets_hashes) != 1:
            return {}
        found = {key: word_of.get((*key, table.targets_hashes[0], table.stride)) for key in table.cells}
        return {key: word for key, word in found.items() if word}

    return [replace(table, words=words(table)) for table in shown]


def how_to_read() -> list[str]:
    from posexp.evaluation.verdicts import MARGIN

    return [
        "Each cell: how much what lies beyond the training length changes the perplexity on the same targets, with its "
        "95 % interval over seeds and documents, against the better of two controls: cropped, the input cut to the "
        "training length, or window, attention cut to it. Below: how much shuffling what lies beyond changes it.",
        f"ignores: the interval lies within {100 * MARGIN:g} %; else uses: it lies below 0; breaks: above 0; unclear: "
        "neither. Usable length: the longest evaluated one up to which nothing breaks, + where that is the longest, ? "
        "where one of those lengths is unclear.",
    ]


def cell_lines(verdict: "Verdict | None") -> list[str]:
    """Word and change; interval and control; what shuffling changes. As many as are known."""
    if verdict is None:
        return ["–"]
    if verdict.difference is None:
        return [verdict.word]
    lines = [f"{verdict.word} {percent(verdict.difference.value)}"]
    lines.append(" ".join([*interval(verdict.difference), verdict.control]))
    if verdict.shuffled is not None:
        lines.append(" ".join(["shuffled", percent(verdict.shuffled.value), *interval(verdict.shuffled)]))
    return lines


def grid(
    verdicts: "Sequence[Verdict]", usable: "Sequence[Usable]"
) -> tuple[list[int], list[tuple[str, str, list[list[str]]]]]:
    """(lengths, rows of curve, usable length and the lines of each length's cell)."""
    lengths = sorted({verdict.length for verdict in verdicts})
    found = {(verdict.curve, verdict.length): verdict for verdict in verdicts}
    up_to = lengths_of(usable)
    curves = sorted({verdict.curve for verdict in verdicts})
    return lengths, [
        (curve, up_to.get(curve, "–"), [cell_lines(found.get((curve, length))) for length in lengths])
        for curve in curves
    ]


def lengths_of(usable: "Sequence[Usable]") -> dict[str, str]:
    """Each curve's usable length as tables and pictures write it."""
    return {one.curve: f"{one.length}{'+' * one.at_least}{'?' * one.doubtful}" for one in usable}


def interval(estimate: "Estimate") -> list[str]:
    """[] where there is none."""
    if estimate.low is None or estimate.high is None:
        return []
    return [f"[{percent(estimate.low, '')}, {percent(estimate.high, '')}]"]


def percent(nats: float, unit: str = " %") -> str:
    """The change of perplexity that a difference of losses is: −0.3 %, +48.1 %, +12,345 %, +1.2e+07 %."""
    value = 100 * math.expm1(min(nats, 700.0))
    text = f"{value:+.1f}" if abs(value) < 99.95 else f"{value:+,.0f}" if value < 99_999.5 else f"{value:+.1e}"
    return ("0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")) + unit


def csv_of(verdicts: "Sequence[Verdict]") -> str:
    """One line a verdict; differences are in nats per token, and what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV, restval="", lineterminator="\n")
    writer.writeheader()
    for verdict in verdicts:
        row: dict[str, object] = {name: getattr(verdict, name) for name in ("curve", "length", "word", "control")}
        if one := verdict.difference:
            row |= {"difference": one.value, "low": one.low, "high": one.high, "p": one.p}
            row |= {"seeds": one.seeds, "documents": one.documents}
        if one := verdict.shuffled:
            row |= {"shuffled": one.value, "shuffled_low": one.low, "shuffled_high": one.high}
        writer.writerow(row)
    return text.getvalue()
