"""The answer in words: the verdicts of a table at the longest lengths."""

from typing import TYPE_CHECKING

from posexp.evaluation.verdicts import TOO_FEW
from posexp.output.text import one_line
from posexp.report import verdict_table
from posexp.report.metric import percent, signed
from posexp.report.tables import Table, counted, counts_of

if TYPE_CHECKING:
    from posexp.evaluation.verdicts import Verdict

FEW = 6  # maximum number of curves per verdict with a phrase each
# What is said of a curve, and what follows the interval, by the word of its verdict.
PHRASES = {
    "collapses": ("worse", ", and worse than with an eighth of the training length"),
    "degrades": ("worse", ""),
    "uses": ("better", ""),
    "ignores": ("unchanged", ", while the oracle gains"),
    "no headroom": ("unchanged", ", and the oracle is not shown to gain"),
    "unchanged": ("unchanged", ""),
    "unclear": ("undecided", ""),
}
SIZED = ("worse", "better")


def answer(table: Table) -> str:
    """Return one sentence per longest multiple of the training length among the curves; "" without verdicts."""
    longest = {verdict.place.curve: verdict for verdict in table.verdicts}  # verdicts are in order of length
    by_multiple: dict[float, list[Verdict]] = {}
    for curve, verdict in longest.items():
        by_multiple.setdefault(verdict.place.length / max(1, min(table.trained[curve])), []).append(verdict)
    sentences = [sentence(times, found) for times, found in sorted(by_multiple.items(), reverse=True)]
    return " ".join([*sentences, *basis(table)])


def sentence(times: float, found: "list[Verdict]") -> str:
    """Return a sentence such as "At 16 times its training length, …, rope is 36 % worse (95 %: 33 to 40 %)."."""
    found = sorted(found, key=lambda verdict: -abs(verdict.cropped.value) if verdict.cropped else 0)
    words = dict.fromkeys([*PHRASES, *(verdict.word for verdict in found)])
    parts = [part for word in words for part in phrases(word, [verdict for verdict in found if verdict.word == word])]
    whose = "its" if len(found) == 1 else "the"
    return f"At {times:g} times {whose} training length, against that length alone, {'; '.join(parts)}."


def phrases(word: str, found: "list[Verdict]") -> list[str]:
    if len(found) <= FEW:
        return [phrase(word, verdict) for verdict in found]
    every = [one_line(verdict.place.curve) for verdict in found]
    many = f"{', '.join(every[:-1])} and {every[-1]}"
    changes = sorted(percent(verdict.cropped.value) for verdict in found if verdict.cropped)
    if word == TOO_FEW:
        return [f"{many} change by {signed(changes[0])} to {signed(changes[-1])} %"]
    if word not in PHRASES:
        return [f"{many} have no value ({word})"]
    claim, rest = PHRASES[word]
    size = f"{span(changes[0], changes[-1])} % " if claim in SIZED else ""
    return [f"{many} are {size}{claim}{rest}"]


def phrase(word: str, verdict: "Verdict") -> str:
    curve, one = one_line(verdict.place.curve), verdict.cropped
    if one is None or word not in (*PHRASES, TOO_FEW):
        return f"{curve} has no value ({word})"
    claim, rest = PHRASES.get(word, ("", ""))
    interval = ""
    if one.low is not None and one.high is not None:
        low, high = percent(one.low), percent(one.high)
        interval = f" (95 %: {span(low, high) if claim in SIZED else f'{signed(low)} to {signed(high)}'} %)"
    if word == TOO_FEW:
        return f"{curve} changes by {signed(percent(one.value))} %{interval}"
    size = f"{written(percent(one.value))} % " if claim in SIZED else ""
    return f"{curve} is {size}{claim}{interval}{rest}"


def span(low: float, high: float) -> str:
    """Return the range of the sizes of changes in percent, the smaller first."""
    return " to ".join(map(written, sorted((low, high), key=abs)))


def written(value: float) -> str:
    """Format a size with one decimal below ten and none from ten on: 3.9, 36, 2,988, 1.2e+07."""
    value = abs(value)
    if value >= 99_999.5:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def basis(table: Table) -> list[str]:
    """Return sentences on the seeds and documents that the intervals cover, and on curves without a verdict."""
    found = []
    if any(verdict.bounded for verdict in table.verdicts):
        documents = [counted(table.documents, "document")] if table.documents else []
        seeds = counted(counts_of(table.seeds.values()), "seed")
        found.append(f"Intervals are over {' and '.join([seeds, *documents])}.")
    return found + [verdict_table.FEW] * any(verdict.word == TOO_FEW for verdict in table.verdicts)
