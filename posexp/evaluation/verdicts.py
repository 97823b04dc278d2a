"""The verdicts on a run at lengths beyond its training length: does it use the longer context, and does that harm it?

All differences are paired by target, over seeds and documents, in nats per token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from posexp.evaluation.statistics import Estimate, Ratio

MARGIN = 0.01  # nats per token, 1 % in perplexity: the smallest change that matters
HEADROOM_SHARE = 0.25  # of the oracle's gain, if that is a smaller margin
LEAST_SEEDS = 3
JUDGED = ("uses", "ignores", "unchanged", "no headroom", "degrades", "collapses", "unclear")
TOO_FEW = "too few seeds"
WORDS = (*JUDGED, TOO_FEW)  # other words of verdicts are statuses


class Place(NamedTuple):
    """The place of an estimate: one curve at one length, on one set of targets."""

    curve: str
    length: int
    targets_hash: str
    stride: int | None  # only in rows of older versions of posexp


@dataclass(frozen=True)
class Verdict:
    """A verdict on one curve at one length beyond its training length, on one set of targets of same_targets.

    `word` is one of WORDS (`word_of` has the rules) or the status of a failed row (undefined, non-finite, out of
    memory). The estimates are differences between the loss and that of a control: `cropped`, the input cut to the
    training length; `window`, attention cut to the training length in every layer; `eighth`, the input cut to an eighth
    of the training length. `shuffled` is the loss with all text beyond the training length shuffled less the loss
    without. `gain` is what the oracle gains over the cropped control (positive if it gains), and `captured` the run's
    own gain over the same control as a share of it. Estimates are None where a control was not measured. `margin` is
    the smallest change that matters here. `documents` is the number of documents with targets, None in old rows.
    """

    place: Place
    word: str
    margin: float = MARGIN
    cropped: Estimate | None = None
    window: Estimate | None = None
    shuffled: Estimate | None = None
    eighth: Estimate | None = None
    gain: Estimate | None = None
    captured: Ratio | None = None
    documents: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether the difference to the cropped control has an interval."""
        return self.cropped is not None and self.cropped.low is not None

    @property
    def failed(self) -> bool:
        return self.word not in WORDS


@dataclass(frozen=True)
class Usable:
    """The lengths that a curve is shown to bear, at an error of 2.5 % a side.

    `safe` is the longest evaluated length at and below which the loss is shown to exceed that at the training length by
    less than the margin (non-inferiority, tested from the shortest length on). `broken` is the shortest length at which
    it is shown to exceed it by more, or has no value; None if no length is. `all_safe`: `safe` is the longest
    evaluated length.
    """

    curve: str
    safe: int
    broken: int | None
    all_safe: bool


def margin_of(gain: Estimate | None) -> float:
    """Return the smallest change that matters: MARGIN, or a quarter of the oracle's gain if shown and smaller."""
    return min(MARGIN, HEADROOM_SHARE * gain.value) if gain is not None and shown_above(gain, 0.0) else MARGIN


def word_of(verdict: Verdict) -> str:
    """Return the word of a verdict. The first rule that holds decides; intervals have 95 %.

    1. The change lies within the margin: *ignores* if the oracle is shown to gain, *no headroom* if it is not, and
       *unchanged* if there is no oracle.
    2. The change lies below 0 against the cropped and, if measured, the window control: *uses*.
    3. The change lies above 0: *collapses* if the loss is shown to be above that of an eighth of the training length
       too, otherwise *degrades*.
    4. *unclear*.
    """
    cropped, margin = verdict.cropped, verdict.margin
    if cropped is None or cropped.low is None or cropped.high is None:
        return "unclear"
    if cropped.low >= -margin and cropped.high <= margin:
        if verdict.gain is None:
            return "unchanged"
        return "ignores" if shown_above(verdict.gain, 0.0) else "no headroom"
    if all(one.high is not None and one.high < 0 for one in (cropped, verdict.window) if one is not None):
        return "uses"
    if cropped.low > 0:
        return "collapses" if shown_above(verdict.eighth, 0.0) else "degrades"
    return "unclear"


def shown_above(one: Estimate | None, bound: float) -> bool:
    return one is not None and one.low is not None and one.low > bound


def usable(verdicts: Sequence[Verdict], trained: dict[str, int], lengths: Iterable[int]) -> list[Usable]:
    """Return the usable lengths of every curve with verdicts, which share one set of targets.

    `trained` has the training length of each curve and `lengths` all evaluated lengths. A length without a verdict is
    not shown to be safe. Curves with too few seeds are omitted.
    """
    found = []
    at = {(verdict.place.curve, verdict.place.length): verdict for verdict in verdicts if verdict.word != TOO_FEW}
    for curve in dict.fromkeys(curve for curve, _ in at):
        longer = sorted(length for length in set(lengths) if length > trained[curve])
        safe = trained[curve]
        for length in longer:
            verdict = at.get((curve, length))
            if verdict is None or verdict.cropped is None or not below(verdict.cropped, verdict.margin):
                break
            safe = length
        broken = next((n for n in longer if (one := at.get((curve, n))) is not None and breaks(one)), None)
        found.append(Usable(curve, safe, broken, bool(longer) and safe == longer[-1]))
    return found


def below(one: Estimate, margin: float) -> bool:
    return one.high is not None and one.high <= margin


def breaks(verdict: Verdict) -> bool:
    """Return whether the loss is shown to exceed that at the training length by more than the margin, or has failed."""
    return verdict.failed or shown_above(verdict.cropped, verdict.margin)
