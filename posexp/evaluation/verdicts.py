"""What a run does with context beyond its training length: uses it, ignores it, or breaks."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from posexp.errors import Misuse
from posexp.evaluation.losses import Losses
from posexp.evaluation.pairing import differences
from posexp.evaluation.rows import Row, status_of, variant_of
from posexp.evaluation.statistics import Estimate, estimate

MARGIN = 0.01  # nats per token, 1 % in perplexity: a smaller change is nothing that a user of the model would notice
PROTOCOL = "same_targets"
WORDS = ("uses", "ignores", "breaks", "unclear")  # any other is a status

LossesOf = Callable[[Row], Losses | None]
Rows = dict[str, Row]  # by run


class Place(NamedTuple):
    """Where an estimate belongs: one curve at one length, on one set of targets."""

    curve: str
    length: int
    targets_hash: str
    stride: int | None  # of rows that older versions of posexp made


@dataclass(frozen=True)
class Verdict:
    """Of one curve at one length beyond its training length, on one set of targets of same_targets.

    `word` is uses, ignores, breaks, unclear, or the status that keeps it from having one (undefined, non-finite,
    out of memory). `difference` is the loss less that of `control`, in nats per token, paired by target, over seeds
    and documents; `control` is "cropped" or "window", whichever has the lower loss. `shuffled` is the loss with what
    lies beyond the training length shuffled less the loss without, likewise; None where it was not measured.
    `documents` is the number of documents that hold the targets, None where the rows do not say.
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
    """The largest evaluated length of one curve up to which it never breaks; `at_least` if that is the longest,
    `doubtful` if the verdict on it, or on a length before it, is unclear."""

    curve: str
    length: int
    at_least: bool
    doubtful: bool = False


class Pairs:
    """Differences of losses between rows of the same runs and targets, each computed once.

    `curve_of` maps run folder names to labels, as for tables; `losses_of` returns a row's losses.
    """

    def __init__(self, rows: list[Row], curve_of: dict[str, str], losses_of: LossesOf):
        self.losses_of = losses_of
        self.known: dict[tuple, Estimate] = {}
        self.plain: dict[Place, Rows] = {}
        self.controls: dict[tuple[Place, str], Rows] = {}
        for row in rows:
            if row["protocol"] == PROTOCOL:
                place = Place(curve_name(row, curve_of), row["length"], row["targets_hash"], row.get("stride"))
                control = row.get("control")
                of_place = (
                    self.controls.setdefault((place, control), {}) if control else self.plain.setdefault(place, {})
                )
                of_place[row["run"]] = row

    def controls_of(self, place: Place) -> dict[str, Rows]:
        """The rows that say what the curve does without the longer context, by control: those that every run of the
        place has."""
        plain = self.plain[place]
        found = {name: self.controls.get((place, name), {}) for name in ("window", "shuffled")}
        found["cropped"] = self.plain.get(place._replace(length=trained_length(plain)), {})
        return {name: of_runs for name, of_runs in found.items() if covers(of_runs, plain)}

    def difference(self, ones: Rows, others: Rows) -> Estimate:
        """The mean loss of `ones` less that of `others`, paired by run and target. Raises Misuse where losses are not
        kept or targets differ."""
        key = tuple((id(row), id(others[run])) for run, row in ones.items())
        if key not in self.known:
            pairs = []
            for run, row in ones.items():
                one, other = self.losses_of(row), self.losses_of(others[run])
                if one is None or other is None:
                    raise Misuse(
                        f"the losses of {run} are not all kept: repeat the eval command, which measures them anew"
                    )
                pairs.append((one, other))
            self.known[key] = estimate(*differences(pairs))
        return self.known[key]

    def changes(self) -> dict[Place, Estimate]:
        """The change of the loss against the curve's own training length, on the same targets, in nats per token: of
        every place where it can be computed."""
        found = {}
        for place, plain in self.plain.items():
            cropped = self.controls_of(place).get("cropped")
            if cropped and cropped is not plain and covers(plain, plain):
                with suppress(Misuse):
                    found[place] = self.difference(plain, {run: cropped[run] for run in plain})
        return found

    def verdicts(self, say: Callable[[str], None] = lambda line: None) -> list[Verdict]:
        """By curve and length, on every set of targets.

        A length without a control for each of its runs has no verdict. A length whose losses are not kept, or whose
        targets differ, has no verdict either, and `say` receives the reason as one line.
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
        """None without a control for each run. Raises Misuse if the runs cannot be paired."""
        plain, controls = self.plain[place], self.controls_of(place)
        documents = next((row["documents"] for row in plain.values() if row.get("documents")), None)
        failures = [status_of(row) for row in sorted(plain.values(), key=by_seed) if status_of(row) != "ok"]
        if failures:
            return Verdict(place, failures[0].split(":")[0], "", None, None, documents)
        candidates = [name for name in ("cropped", "window") if name in controls]
        if not candidates:
            return None
        control = min(candidates, key=lambda name: sum(controls[name][run]["nll"] for run in plain))
        difference = self.difference(plain, {run: controls[control][run] for run in plain})
        shuffled = None
        if "shuffled" in controls:
            shuffled = self.difference({run: controls["shuffled"][run] for run in plain}, plain)
        return Verdict(place, word_of(difference), control, difference, shuffled, documents)


def word_of(difference: Estimate) -> str:
    """What the interval of a difference from the control says."""
    if difference.low is None or difference.high is None:
        return "unclear"
    if difference.low >= -MARGIN and difference.high <= MARGIN:
        return "ignores"
    return "uses" if difference.high < 0 else "breaks" if difference.low > 0 else "unclear"


def covers(of_runs: Rows, plain: Rows) -> bool:
    return all(run in of_runs and status_of(of_runs[run]) == "ok" for run in plain)


def trained_length(plain: Rows) -> int:
    """Tokens; the same for all runs of a curve."""
    length: int = next(iter(plain.values()))["train_length"]
    return length


def by_seed(row: Row) -> tuple:
    return row["seed"], row["run"]


def curve_name(row: Row, curve_of: dict[str, str]) -> str:
    """The label of the row's run, and how it was evaluated other than as trained; of a control, what it controls."""
    run: str = row["run"]
    return curve_of.get(run, run) + variant_of(row)


def usable(verdicts: Sequence[Verdict], trained: dict[str, int]) -> list[Usable]:
    """Of every curve that has verdicts, which are on one set of targets: the training length, which `trained` holds, or
    the largest length before the first that breaks or fails. Lengths without a verdict do not count."""
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
