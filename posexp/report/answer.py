"""The answer in words: the verdicts of a table at the longest lengths."""

from typing import TYPE_CHECKING

from posexp.evaluation.verdicts import TOO_FEW
from posexp.output.text import one_line
from posexp.report import verdict_table
from posexp.report.metric import percent
from posexp.report.tables import Table, number_range

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
    changes = sorted((verdict.cropped.value for verdict in found if verdict.cropped), key=abs)
    many = f"{', '.join(every[:-1])} and {every[-1]}"
    if word == TOO_FEW:
        return [f"{many} change by {signed(min(changes))} to {signed(max(changes))} %"]
    if word not in PHRASES:
        return [f"{many} have no value ({word})"]
    claim, rest = PHRASES[word]
    return [f"{many} are " + f"{size(changes[0])} to {size(changes[-1])} % " * (claim in SIZED) + claim + rest]


def phrase(word: str, verdict: "Verdict") -> str:
    curve, one = one_line(verdict.place.curve), verdict.cropped
    if one is None or word not in (*PHRASES, TOO_FEW):
        return f"{curve} has no value ({word})"
    known = one.low is not None and one.high is not None
    if word == TOO_FEW:
        return (
            f"{curve} changes by {signed(one.value)} %" + f" (95 %: {signed(one.low)} to {signed(one.high)} %)" * known
        )
    claim, rest = PHRASES[word]
    if claim in SIZED:
        low, high = sorted((abs(percent(one.low or 0.0)), abs(percent(one.high or 0.0))))
        text = f" (95 %: {written(low)} to {written(high)} %)" if known else ""
        return f"{curve} is {size(one.value)} % {claim}{text}{rest}"
    return f"{curve} is {claim}" + f" ({signed(one.low)} to {signed(one.high)} %)" * known + rest


def size(nats: float) -> str:
    return written(abs(percent(nats)))


def signed(nats: float | None) -> str:
    value = percent(nats or 0.0)
    text = written(abs(value))
    return text if not float(text.replace(",", "")) else ("−" if value < 0 else "+") + text


def written(value: float) -> str:
    """Format with one decimal below ten and none from ten on: 3.9, 36, 2,988, 1.2e+07."""
    if value >= 99_999.5:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def basis(table: Table) -> list[str]:
    """Return sentences on the seeds and documents that the intervals cover, and on curves without a verdict."""
    found = []
    if any(verdict.bounded for verdict in table.verdicts):
        counts = tuple(sorted(set(table.seeds.values())))
        seeds = "1 seed" if counts == (1,) else f"{number_range(counts)} seeds"
        many = table.documents and f" and {number_range(table.documents)} document{'s' * (table.documents != (1,))}"
        found.append(f"Intervals are over {seeds}{many or ''}.")
    return found + [verdict_table.FEW] * any(verdict.word == TOO_FEW for verdict in table.verdicts)
