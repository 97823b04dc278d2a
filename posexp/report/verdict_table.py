"""Verdicts on context beyond the training length, in words and percent, and as a CSV file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from posexp.output.text import csv_text
from posexp.report.metric import percent, signed
from posexp.report.tables import Table

if TYPE_CHECKING:
    from posexp.evaluation.statistics import Estimate
    from posexp.evaluation.verdicts import Usable, Verdict

MARKS = {"uses": "▼", "ignores": "=", "breaks": "▲", "unclear": "?"}
LEGEND = "Marks of verdicts: ▼ uses, = ignores, ▲ breaks, ? unclear."
HEADING = "Context beyond the training length"
CSV = (
    *("curve", "length", "word", "control", "difference", "low", "high", "p"),
    *("shuffled", "shuffled_low", "shuffled_high", "seeds", "documents", "targets_hash", "stride"),
)


def how_to_read(verdicts: "Sequence[Verdict]") -> list[str]:
    """Return the lines that explain verdicts; [] without verdicts."""
    from posexp.evaluation.verdicts import MARGIN

    if not verdicts:
        return []
    bounded = "with its 95 % interval over seeds and documents, " if any(v.bounded for v in verdicts) else ""
    return [
        "Each verdict is the change of perplexity by context beyond the training length, on the same targets, "
        f"{bounded}against the better of two controls. The control cropped cuts the input to the training length, the "
        "control window cuts attention to it. Below is the change when the context beyond is shuffled.",
        f"A verdict is ignores if the interval lies within {100 * MARGIN:g} %, otherwise uses if it lies below 0, "
        "breaks if it lies above 0, and unclear if neither. The usable length is the longest evaluated length up to "
        "which nothing breaks. + marks the longest length of all, ? an unclear length up to there.",
    ]


def cell_lines(verdict: "Verdict | None") -> list[str]:
    """Return the lines of a cell: word and change, interval and control, effect of shuffling, as far as known."""
    if verdict is None:
        return ["–"]
    if verdict.difference is None:
        return [verdict.word]
    lines = [f"{verdict.word} {in_percent(verdict.difference.value)}"]
    lines.append(" ".join([*interval(verdict.difference), verdict.control]))
    if verdict.shuffled is not None:
        lines.append(" ".join(["shuffled", in_percent(verdict.shuffled.value), *interval(verdict.shuffled)]))
    return lines


def grid(table: Table) -> tuple[list[int], list[tuple[str, str, list[list[str]]]]]:
    """Return lengths and rows of a table's verdicts. A row is (curve, usable length, lines of each cell)."""
    found = {(verdict.place.curve, verdict.place.length): verdict for verdict in table.verdicts}
    lengths = sorted({length for _, length in found})
    up_to = lengths_of(table.usable)
    curves = sorted({curve for curve, _ in found})
    return lengths, [
        (curve, up_to.get(curve, "–"), [cell_lines(found.get((curve, length))) for length in lengths])
        for curve in curves
    ]


def lengths_of(usable: "Sequence[Usable]") -> dict[str, str]:
    """Return the usable length of each curve as text."""
    return {one.curve: f"{one.length}{'+' * one.at_least}{'?' * one.doubtful}" for one in usable}


def interval(estimate: "Estimate") -> list[str]:
    """Return the interval in percent as a list of one text; [] if there is none."""
    if estimate.low is None or estimate.high is None:
        return []
    return [f"[{signed(percent(estimate.low))}, {signed(percent(estimate.high))}]"]


def in_percent(nats: float) -> str:
    """Format a difference of losses as a change of perplexity: −0.3 %, +48.1 %, +12,345 %."""
    return f"{signed(percent(nats))} %"


def verdicts_to_csv(verdicts: "Sequence[Verdict]") -> str:
    """Return CSV with one line per verdict. Differences are in nats per token; unknown values are empty."""
    rows = []
    for verdict in verdicts:
        row: dict[str, object] = {**verdict.place._asdict(), "word": verdict.word, "control": verdict.control}
        row["documents"] = verdict.documents
        if one := verdict.difference:
            row |= {"difference": one.value, "low": one.low, "high": one.high, "p": one.p}
            row |= {"seeds": one.seeds, "documents": one.documents}
        if one := verdict.shuffled:
            row |= {"shuffled": one.value, "shuffled_low": one.low, "shuffled_high": one.high}
        rows.append(row)
    return csv_text(CSV, rows)
