"""Verdicts on context beyond the training length, in words and percent, and as a CSV file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from posexp.evaluation.verdicts import HEADROOM_SHARE, JUDGED, MARGIN, TOO_FEW
from posexp.output.text import csv_text
from posexp.report.metric import EXACT_MATCH, percent, signed
from posexp.report.tables import Table

if TYPE_CHECKING:
    from posexp.evaluation.statistics import Estimate, Ratio
    from posexp.evaluation.verdicts import Usable, Verdict

MARKS = {
    **{"uses": "▼", "ignores": "=", "unchanged": "≈", "no headroom": "○"},
    **{"degrades": "▲", "collapses": "▲▲", "unclear": "?"},
}
HARMED = ("degrades", "collapses")
LEGEND = (
    "Marks of verdicts: ▼ uses, = ignores, ≈ unchanged (no oracle: headroom not measured), ○ no headroom, ▲ degrades, "
    "▲▲ collapses, ? unclear."
)
CROPPED = (
    "A verdict is on the change of perplexity against the control cropped, whose input is cut to the training length, "
    "on the same targets."
)
FURTHER = {  # estimates of a verdict
    "window": (
        "window is the change against the control window, whose attention is cut to the training length in every "
        "layer. Through n layers it still reads n × L tokens back, where L is the training length."
    ),
    "shuffled": "shuffled is the change when the text further back than the training length is shuffled.",
    "gain": (
        "oracle is the change of a model trained at the evaluated length, against the same control cropped. On a "
        "track it is the change of the best possible predictor. captured is the curve's own gain over that control as "
        "a share of the oracle's."
    ),
}
RULES = (
    "The first rule that holds decides. If the interval lies within the margin, the verdict is ignores if the oracle "
    "is shown to gain, no headroom if it is not, and unchanged without an oracle. If it lies below 0, against window "
    "too, the verdict is uses. If it lies above 0, the verdict is collapses if the loss is shown to be above that with "
    "an eighth of the training length, otherwise degrades. In all other cases it is unclear. The margin is "
    f"{MARGIN:g} nats ({100 * MARGIN:g} %), or {HEADROOM_SHARE:g} of the oracle's gain if that is smaller."
)
USABLE = (
    "A usable length of 128–1024 says that up to 128 the loss is shown to exceed that at the training length by no "
    "more than the margin, and that at 1024 it is shown to exceed it by more, or has no value. ? stands where no "
    "length is shown to do so, + where every evaluated length is shown to be safe."
)
FEW = "No verdict from fewer than three seeds."
HEADING = "Context beyond the training length"
ESTIMATES = ("cropped", "window", "shuffled", "eighth", "gain")
CSV = (
    *("curve", "length", "word", "margin"),
    *(column for name in ESTIMATES for column in (name, f"{name}_low", f"{name}_high", f"{name}_p")),
    *("captured", "captured_low", "captured_high", "seeds", "documents", "targets_hash", "stride"),
)


def how_to_read(verdicts: "Sequence[Verdict]") -> list[str]:
    """Return the lines that explain verdicts and the estimates that they have; [] without verdicts."""
    if not verdicts:
        return []
    first = CROPPED + (" Intervals have 95 %, over seeds and documents." if any(v.bounded for v in verdicts) else "")
    further = [line for name, line in FURTHER.items() if any(getattr(verdict, name) for verdict in verdicts)]
    return [first, *further, RULES, USABLE] + [FEW] * any(verdict.word == TOO_FEW for verdict in verdicts)


def cell_lines(verdict: "Verdict | None") -> list[str]:
    """Return the lines of a cell: the word with the change, then one line for each further estimate that is known."""
    if verdict is None:
        return ["–"]
    if verdict.cropped is None:
        return [verdict.word]
    change = in_percent(verdict.cropped)
    lines = [change if verdict.word == TOO_FEW else f"{verdict.word} {change}"]
    lines += [f"{name} {in_percent(one)}" for name in ("window", "shuffled") if (one := getattr(verdict, name))]
    lines += [f"oracle {in_percent(verdict.gain, -1)}"] if verdict.gain else []
    return lines + ([f"captured {share(verdict.captured)}"] if verdict.captured else [])


def grid(table: Table) -> tuple[list[int], list[tuple[str, str, "list[tuple[str, list[str]]]"]]]:
    """Return lengths and rows of a table's verdicts. A row is (curve, usable length, word and lines of each cell)."""
    lengths, up_to = sorted({length for _, length in table.verdict_at}), lengths_of(table.usable)
    rows = []
    for curve in sorted({curve for curve, _ in table.verdict_at}):
        keys = [(curve, length) for length in lengths]
        cells = [(table.words.get(key, ""), cell_lines(table.verdict_at.get(key))) for key in keys]
        rows.append((curve, up_to.get(curve, "–"), cells))
    return lengths, rows


def columns(table: Table) -> list[tuple[str, dict[str, tuple[str, float]]]]:
    """Return the columns that sum a curve up, (heading, (text, sort key) by curve), at the longest judged lengths."""
    if table.measure is EXACT_MATCH:
        sizes = {curve: (table.shown_size(curve), float(table.usable_size(curve))) for curve in table.curves}
        return [("usable size", sizes)]
    if not table.verdicts:
        return []
    up_to = lengths_of(table.usable)
    last, words = of_longest(table.verdicts)
    found = [
        ("usable length", {one.curve: (up_to[one.curve], float(one.safe)) for one in table.usable}),
        (f"verdict at {last}", {v.place.curve: (v.word, float([*JUDGED, v.word].index(v.word))) for v in words}),
    ]
    if gains := [verdict for verdict in table.verdicts if verdict.captured]:
        last, gains = of_longest(gains)
        shares = {verdict.place.curve: (share(one), one.value) for verdict in gains if (one := verdict.captured)}
        found.append((f"captured gain at {last}", shares))
    return found


def of_longest(verdicts: "Sequence[Verdict]") -> "tuple[int, list[Verdict]]":
    """Return the longest length and its verdicts."""
    last = max(verdict.place.length for verdict in verdicts)
    return last, [verdict for verdict in verdicts if verdict.place.length == last]


def lengths_of(usable: "Sequence[Usable]") -> dict[str, str]:
    """Return the usable length of each curve as text: 128–1024, 512–? or 4096+."""
    return {one.curve: f"{one.safe}+" if one.all_safe else f"{one.safe}–{one.broken or '?'}" for one in usable}


def in_percent(nats: "Estimate", sign: int = 1) -> str:
    """Format a difference of losses as a change of perplexity: −0.3 %, +48.1 % [+46.0, +50.2]."""
    text = f"{signed(percent(sign * nats.value))} %"
    if nats.low is None or nats.high is None:
        return text
    low, high = sorted((sign * nats.low, sign * nats.high))
    return f"{text} [{signed(percent(low))}, {signed(percent(high))}]"


def share(captured: "Ratio") -> str:
    """Format a captured gain: 80 % [62, 98]."""
    value, *bounds = (f"{round(100 * one):,}".replace("-", "−") for one in vars(captured).values() if one is not None)
    return f"{value} % [{', '.join(bounds)}]" if bounds else f"{value} %"


def verdicts_to_csv(verdicts: "Sequence[Verdict]") -> str:
    """Return CSV with one line per verdict. Differences are in nats per token; unknown values are empty."""
    rows = []
    for verdict in verdicts:
        row: dict[str, object] = {**verdict.place._asdict(), "word": verdict.word, "margin": verdict.margin}
        row["documents"] = verdict.documents
        for name in ESTIMATES:
            if one := getattr(verdict, name):
                row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_p": one.p}
        if one := verdict.captured:
            row |= {"captured": one.value, "captured_low": one.low, "captured_high": one.high}
        if verdict.cropped:
            row |= {"seeds": verdict.cropped.seeds, "documents": verdict.cropped.documents}
        rows.append(row)
    return csv_text(CSV, rows)
