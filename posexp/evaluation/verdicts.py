"""The verdicts on a run at lengths beyond its training length: it uses the longer context, ignores it, or breaks."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from posexp.errors import Misuse
from posexp.evaluation.losses import Losses
from posexp.evaluation.pairing import differences
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import Estimate, estimate

MARGIN = 0.01  # nats per token, 1 % in perplexity: the smallest change that matters
PROTOCOL = "same_targets"
WORDS = ("uses", "ignores", "breaks", "unclear")  # other words of verdicts are statuses

LossesOf = Callable[[Row], Losses | None]
Rows = dict[str, Row]  # by run


class Place(NamedTuple):
    """The place of an estimate: one curve at one length, on one set of targets."""

    curve: str
    length: int
    targets_hash: str
    stride: int | None  # only in rows of older versions of posexp


@dataclass(frozen=True)
class Verdict:
    """A verdict on one curve at one length beyond its training length, on one set of targets of same_targets.

    `word` is uses, ignores, breaks, unclear, or the status of a failed row (undefined, non-finite, out of memory).
    `control` is "cropped" or "window", whichever has the lower loss. `difference` is the loss less that of `control`,
    in nats per token, paired by target, over seeds and documents. `shuffled` is the loss with all text beyond the
    training length shuffled less the loss without, paired likewise; None if it was not measured. `documents` is the
    number of documents with targets, None in old rows.
    """

    place: Place
    word: str
    control: str
    difference: Estimate | None
    shuffled: Estimate | None
    documents: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether the difference has an interval."""
        return self.difference is not None and self.difference.low is not None


@dataclass(frozen=True)
class Usable:
    """The largest evaluated length up to which a curve never breaks.

    `at_least`: no longer length was evaluated. `doubtful`: the verdict at this or a shorter length is unclear.
    """

    curve: str
    length: int
    at_least: bool
    doubtful: bool = False


class Pairs:
    """The differences of losses between rows of the same runs and targets, each computed once.

    `curve_of` maps names of run folders to labels. `losses_of` returns the losses of a row.
    """

    def __init__(self, rows: list[Row], curve_of: dict[str, str], losses_of: LossesOf):
        self.losses_of = losses_of
        self.known: dict[tuple[tuple[int, int], ...], Estimate] = {}
        self.plain: dict[Place, Rows] = {}
        self.controls: dict[tuple[Place, str], Rows] = {}
        for row in rows:
            if row.protocol == PROTOCOL:
                place = Place(curve_name(row, curve_of), row.length, row.targets_hash, row.stride)
                of_place = (
                    self.controls.setdefault((place, row.control), {})
                    if row.control
                    else self.plain.setdefault(place, {})
                )
                of_place[row.run] = row

    def controls_of(self, place: Place) -> dict[str, Rows]:
        """Return the rows of each control ("window", "shuffled", "cropped") that every run of the place has."""
        plain = self.plain[place]
        found = {name: self.controls.get((place, name), {}) for name in ("window", "shuffled")}
        found["cropped"] = self.plain.get(place._replace(length=trained_length(plain)), {})
        return {name: of_runs for name, of_runs in found.items() if covers(of_runs, plain)}

    def difference(self, ones: Rows, others: Rows) -> Estimate:
        """Return the mean loss of `ones` less that of `others`, paired by run and target.

        Raises Misuse if losses are missing or targets differ.
        """
        key = tuple((id(row), id(others[run])) for run, row in ones.items())
        if key not in self.known:
            pairs = []
            for run, row in ones.items():
                one = self.losses_of(row)
                other = self.losses_of(others[run]) if one is not None else None
                if one is None or other is None:
                    raise Misuse(
                        f"some losses of {run} are missing: repeat the eval command, which measures them again"
                    )
                pairs.append((one, other))
            self.known[key] = estimate(*differences(pairs))
        return self.known[key]

    def changes(self) -> dict[Place, Estimate]:
        """Return the change of the loss from the curve's training length, on the same targets, in nats per token.

        Places for which the change cannot be computed are omitted.
        """
        found = {}
        for place, plain in self.plain.items():
            cropped = self.controls_of(place).get("cropped")
            if cropped and cropped is not plain and covers(plain, plain):
                with suppress(Misuse):
                    found[place] = self.difference(plain, {run: cropped[run] for run in plain})
        return found

    def verdicts(self, say: Callable[[str], None] = lambda line: None) -> list[Verdict]:
        """Return the verdicts by curve and length, on every set of targets.

        A length has no verdict unless each of its runs has a control, all losses are stored and targets agree. `say`
        receives a line for missing losses and for differing targets.
        """
        found: list[Verdict] = []
        refused: dict[tuple[str, str], set[int]] = {}
        for place, plain in sorted(self.plain.items(), key=lambda item: item[0][:3]):
            if place.length > trained_length(plain):
                try:
                    if verdict := self.judge(place):
                        found.append(verdict)
                except Misuse as error:
                    refused.setdefault((place.curve, str(error)), set()).add(place.length)
        for (curve, reason), lengths in refused.items():
            say(f"{curve} at {', '.join(map(str, sorted(lengths)))}: no verdict, because {reason}")
        return found

    def judge(self, place: Place) -> Verdict | None:
        """Return the verdict; None unless every run has a control. Raises Misuse if the runs cannot be paired."""
        plain, controls = self.plain[place], self.controls_of(place)
        documents = next((row.documents for row in plain.values() if row.documents), None)
        failures = [row.outcome for row in sorted(plain.values(), key=by_seed) if row.outcome != "ok"]
        if failures:
            return Verdict(place, failures[0].split(":")[0], "", None, None, documents)
        candidates = [name for name in ("cropped", "window") if name in controls]
        if not candidates:
            return None
        control = min(candidates, key=lambda name: sum(controls[name][run].loss for run in plain))
        difference = self.difference(plain, {run: controls[control][run] for run in plain})
        shuffled = None
        if "shuffled" in controls:
            shuffled = self.difference({run: controls["shuffled"][run] for run in plain}, plain)
        return Verdict(place, word_of(difference), control, difference, shuffled, documents)


def word_of(difference: Estimate) -> str:
    """Return the word of a verdict from the interval of the difference to the control."""
    if difference.low is None or difference.high is None:
        return "unclear"
    if difference.low >= -MARGIN and difference.high <= MARGIN:
        return "ignores"
    return "uses" if difference.high < 0 else "breaks" if difference.low > 0 else "unclear"


def covers(of_runs: Rows, plain: Rows) -> bool:
    """Return whether every run of `plain` has a row with status ok in `of_runs`."""
    return all(run in of_runs and of_runs[run].outcome == "ok" for run in plain)


def trained_length(plain: Rows) -> int:
    """Return the training length in tokens, which all runs of a curve share."""
    return next(iter(plain.values())).train_length


def by_seed(row: Row) -> tuple[int, str]:
    return row.seed, row.run


def curve_name(row: Row, curve_of: dict[str, str]) -> str:
    """Return the name of the row's curve: the label of its run, then the variant."""
    return curve_of.get(row.run, row.run) + row.variant


def usable(verdicts: Sequence[Verdict], trained: dict[str, int]) -> list[Usable]:
    """Return the usable length of every curve among `verdicts`, which share one set of targets.

    The usable length is the largest before the first that breaks or fails, or the training length (from `trained`).
    Lengths without a verdict do not count.
    """
    found = []
    for curve in dict.fromkeys(verdict.place.curve for verdict in verdicts):
        length, at_least, doubtful = trained[curve], True, False
        for verdict in sorted((v for v in verdicts if v.place.curve == curve), key=lambda v: v.place.length):
            if verdict.word == "breaks" or verdict.word not in WORDS:
                at_least = False
                break
            length, doubtful = verdict.place.length, doubtful or verdict.word == "unclear"
        found.append(Usable(curve, length, at_least, doubtful))
    return found
