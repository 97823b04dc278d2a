"""The differences of losses between rows of the same runs and targets, and the verdicts that follow.

Shape suffixes: S seeds, D documents.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from posexp.errors import Misuse
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import Estimate, Ratio, estimates, ratio
from posexp.evaluation.verdicts import LEAST_SEEDS, TOO_FEW, Place, Verdict, margin_of, shown_above, word_of

PROTOCOL = "same_targets"

Rows = dict[str, Row]  # by run
Sample = tuple[np.ndarray, np.ndarray]  # sums of differences float64 [S, D] and counts of targets float64 [D]


class Pairs:
    """The differences of losses between rows of the same runs and targets, and the verdicts that follow.

    `curve_of` maps names of run folders to labels. `recipe_of` maps them to a key that runs share if they differ only
    in training length and seed: the run trained at the evaluated length is the oracle. `oracle` is a glob over labels
    that names other oracles instead.
    """

    def __init__(
        self,
        rows: list[Row],
        curve_of: dict[str, str],
        recipe_of: dict[str, str] | None = None,
        oracle: str | None = None,
    ):
        self.recipe_of, self.curve_of, self.oracle = recipe_of or {}, curve_of, oracle
        self.plain: dict[Place, Rows] = {}
        self.controls: dict[tuple[Place, str], Rows] = {}
        self.oracles: dict[tuple[int, str, str, int], Row] = {}  # by length, targets, recipe and seed
        self.refused: dict[tuple[str, str], set[int]] = {}  # lengths without estimates, by curve and reason
        self.known: dict[str, dict[Place, Estimate]] = {}
        for row in rows:
            if row.protocol == PROTOCOL:
                place = Place(curve_name(row, curve_of), row.length, row.targets_hash, row.stride)
                control = self.controls.setdefault((place, row.control), {}) if row.control else None
                (self.plain.setdefault(place, {}) if control is None else control)[row.run] = row
                if row.length == row.train_length and not (row.control or row.variant) and row.outcome == "ok":
                    self.oracles[row.length, row.targets_hash, self.oracle_key(row), row.seed] = row

    def oracle_key(self, row: Row) -> str:
        """Return the key that a row shares with its oracle, "" for none."""
        if self.oracle is None:
            return self.recipe_of.get(row.run, "")
        return self.oracle if fnmatchcase(self.curve_of.get(row.run, row.run), self.oracle) else ""

    def control(self, place: Place, name: str) -> Rows:
        """Return the rows of a control of a place by run, {} unless every run of the place has it."""
        plain = self.plain[place]
        trained = trained_length(plain)
        if name == "cropped":
            found = self.plain.get(place._replace(length=trained), {})
        elif name == "eighth":
            found = self.plain.get(place._replace(length=max(1, trained // 8)), {})
        else:
            found = self.controls.get((place, name), {})
        return found if covers(found, plain) and covers(plain, plain) else {}

    def oracle_of(self, place: Place) -> Rows:
        """Return the oracle's rows by the run that they belong to, of the seeds that have one."""
        found = {}
        for run, row in self.plain[place].items():
            key = self.recipe_of.get(run, "") if self.oracle is None else self.oracle
            oracle = self.oracles.get((place.length, place.targets_hash, key, row.seed)) if key else None
            if oracle is not None and oracle.run != run:
                found[run] = oracle
        return found

    def reference(self, place: Place) -> tuple[Rows, Rows]:
        """Return the rows whose difference is the gain that the text allows, first those of cropped inputs.

        On a track both are those of the best possible predictor, which makes up for no lack of training. Other text has
        the oracle, which is compared with the run's own cropped control.
        """
        plain, cropped = self.plain[place], self.control(place, "cropped")
        if cropped and all(row.optimum_sums for row in (*plain.values(), *cropped.values())):
            return {run: row.best() for run, row in cropped.items()}, {run: row.best() for run, row in plain.items()}
        return cropped, self.oracle_of(place)

    def sample(self, place: Place, ones: Rows, others: Rows) -> Sample | None:
        """Return the losses of `ones` less those of `others` by document; None if they cannot be paired."""
        runs = sorted((run for run in ones if run in others), key=lambda run: (ones[run].seed, run))
        if not runs or any(ones[run] is others[run] for run in runs):
            return None
        try:
            return differences([(ones[run], others[run]) for run in runs])
        except Misuse as error:
            self.refused.setdefault((place.curve, str(error)), set()).add(place.length)
            return None

    def contrast(self, name: str, place: Place) -> Sample | None:
        """Return the sample of a field of Verdict."""
        plain = self.plain[place]
        if name == "gain":
            return self.sample(place, *self.reference(place))
        if name == "shuffled":
            return self.sample(place, self.control(place, name), plain)
        return self.sample(place, plain, self.control(place, name))

    def estimated(self, name: str) -> dict[Place, Estimate]:
        """Return the estimate of a field of Verdict at every place; curves at one length pool their seed variance."""
        if name not in self.known:
            at: dict[tuple[int, str], dict[Place, Sample]] = {}
            for place in self.plain:
                if (sample := self.contrast(name, place)) is not None:
                    at.setdefault(place[1:3], {})[place] = sample
            self.known[name] = {
                place: one
                for samples in at.values()
                for place, one in zip(samples, estimates(list(samples.values())), strict=True)
            }
        return self.known[name]

    def changes(self) -> dict[Place, Estimate]:
        """Return the change of the loss from the curve's training length, on the same targets, in nats per token."""
        return self.estimated("cropped")

    def against(self, base: Place, places: Iterable[Place]) -> dict[Place, Estimate]:
        """Return the loss at each place less that at `base`, paired by seed; other places are omitted."""
        found: dict[Place, Sample] = {}
        for place in places:
            ones, others = ({str(row.seed): row for row in self.plain.get(at, {}).values()} for at in (place, base))
            if ones.keys() == others.keys() and (sample := self.sample(place, ones, others)):
                found[place] = sample
        return dict(zip(found, estimates(list(found.values())), strict=True))

    def verdicts(self, say: Callable[[str], None] = lambda line: None) -> list[Verdict]:
        """Return the verdicts by curve and length, on every set of targets; `say` gets the reasons for missing ones."""
        places = sorted(self.plain, key=lambda place: place[:3])
        found = [self.judge(place) for place in places if place.length > trained_length(self.plain[place])]
        for (curve, reason), lengths in self.refused.items():
            say(f"{curve} at {', '.join(map(str, sorted(lengths)))}: no verdict, because {reason}")
        return [verdict for verdict in found if verdict is not None]

    def judge(self, place: Place) -> Verdict | None:
        """Return the verdict; None unless every run has the cropped control. An oracle of too few seeds is ignored."""
        plain = self.plain[place]
        documents = next((row.documents for row in plain.values() if row.documents), None)
        failures = [row.outcome for row in sorted(plain.values(), key=by_seed) if row.outcome != "ok"]
        if failures:
            return Verdict(place, failures[0].split(":")[0], documents=documents)
        estimate_of = {
            name: self.estimated(name).get(place) for name in ("cropped", "window", "shuffled", "eighth", "gain")
        }
        if estimate_of["cropped"] is None:
            return None
        enough = 1 if all(row.origin == "checkpoint" for row in plain.values()) else LEAST_SEEDS
        gain = estimate_of["gain"]
        if gain is not None and gain.seeds < enough:
            gain = estimate_of["gain"] = None
        verdict = Verdict(
            place, "", margin_of(gain), **estimate_of, captured=self.captured(place, gain), documents=documents
        )
        few = estimate_of["cropped"].seeds < enough
        return replace(verdict, word=TOO_FEW if few else word_of(verdict))

    def captured(self, place: Place, gain: Estimate | None) -> Ratio | None:
        """Return the run's gain over the cropped control as a share of the oracle's; None unless that has a gain."""
        if not shown_above(gain, 0.0):
            return None
        before, oracle = self.reference(place)
        cropped = {run: row for run, row in self.control(place, "cropped").items() if run in oracle}
        own, best = self.sample(place, cropped, self.plain[place]), self.sample(place, before, oracle)
        return None if own is None or best is None else ratio(own[0], best[0], own[1])


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


def differences(pairs: Sequence[tuple[Row, Row]]) -> Sample:
    """Return the first rows' losses less the second ones' by document, of one pair for each seed.

    Both rows of a pair score the same targets, so that sums over a document are paired by target. Raises Misuse if sums
    are missing or targets differ.
    """
    first = pairs[0][0].sums
    sums = []
    for pair in pairs:
        one, other = (row.sums for row in pair)
        if first is None or one is None or other is None:
            row = next(row for row in pair if row.sums is None) if one and first else pairs[0][0]
            raise Misuse(
                f"the losses of {row.run} by document are missing: repeat the eval command, which measures them"
            )
        same = len({row.targets_hash for row in (*pair, pairs[0][0])}) == 1
        for found in (one, other):
            same &= np.array_equal(found.documents, first.documents) and np.array_equal(found.counts, first.counts)
        if not same:
            raise Misuse("their targets differ, so they cannot be paired")
        sums.append(one.sums - other.sums)
    assert first is not None
    return np.stack(sums), first.counts
