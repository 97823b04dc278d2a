"""Verdicts on context beyond the training length, in words and percent, and as a CSV file."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from posexp.report.metric import percent, signed
from posexp.report.tables import Table

if TYPE_CHECKING:
    from posexp.evaluation.statistics import Estimate
    from posexp.evaluation.verdicts import Usable, Verdict

MARKS = {"uses": "▼", "ignores": "=", "breaks": "▲", "unclear": "?"}
LEGEND = "What is beyond the training length: ▼ used, = ignored, ▲ breaks the model, ? unclear."
HEADING = "Context beyond the training length"
CSV = (
    *("curve", "length", "word", "control", "difference", "low", "high", "p"),
    *("shuffled", "shuffled_low", "shuffled_high", "seeds", "documents", "targets_hash", "stride"),
)


def how_to_read(verdicts: "Sequence[Verdict]") -> list[str]:
    """What the cells of verdicts are; [] without verdicts."""
    from posexp.evaluation.verdicts import MARGIN

    if not verdicts:
        return []
    bounded = "with its 95 % interval over seeds and documents, " if any(v.bounded for v in verdicts) else ""
    return [
        "Each verdict: how much what lies beyond the training length changes the perplexity on the same targets, "
        f"{bounded}against the better of two controls: cropped, the input cut to the training length, or window, "
        "attention cut to it. Below: how much shuffling what lies beyond changes it.",
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
    lines = [f"{verdict.word} {in_percent(verdict.difference.value)}"]
    lines.append(" ".join([*interval(verdict.difference), verdict.control]))
    if verdict.shuffled is not None:
        lines.append(" ".join(["shuffled", in_percent(verdict.shuffled.value), *interval(verdict.shuffled)]))
    return lines


def grid(table: Table) -> tuple[list[int], list[tuple[str, str, list[list[str]]]]]:
    """(lengths, rows of curve, usable length and the lines of each length's cell) of the verdicts of a table."""
    found = {(verdict.place.curve, verdict.place.length): verdict for verdict in table.verdicts}
    lengths = sorted({length for _, length in found})
    up_to = lengths_of(table.usable)
    curves = sorted({curve for curve, _ in found})
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
    return [f"[{signed(percent(estimate.low))}, {signed(percent(estimate.high))}]"]


def in_percent(nats: float) -> str:
    """The change of perplexity that a difference of losses is: −0.3 %, +48.1 %, +12,345 %."""
    return f"{signed(percent(nats))} %"


def verdicts_to_csv(verdicts: "Sequence[Verdict]") -> str:
    """One line a verdict; differences are in nats per token, and what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV, restval="", lineterminator="\n")
    writer.writeheader()
    for verdict in verdicts:
        row: dict[str, object] = {**verdict.place._asdict(), "word": verdict.word, "control": verdict.control}
        row["documents"] = verdict.documents
        if one := verdict.difference:
            row |= {"difference": one.value, "low": one.low, "high": one.high, "p": one.p}
            row |= {"seeds": one.seeds, "documents": one.documents}
        if one := verdict.shuffled:
            row |= {"shuffled": one.value, "shuffled_low": one.low, "shuffled_high": one.high}
        writer.writerow(row)
    return text.getvalue()
