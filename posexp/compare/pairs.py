"""The comparison of two curves, paired by seed and target: which is better at each length, and by how much."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from posexp.errors import Misuse
from posexp.evaluation.contrasts import differences
from posexp.evaluation.multiplicity import holm, joint
from posexp.evaluation.plan import is_moving
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import ALPHA, Estimate, estimates, p_floor
from posexp.evaluation.verdicts import LEAST_SEEDS, TOO_FEW

CANNOT_TELL = "cannot tell"
EQUAL = "equal"
ROUNDING = 1e-5  # nats: float32 rounding in another batch or library is smaller
T = TypeVar("T")

Family = tuple[str, bool, str, int, str]


class Key(NamedTuple):
    """The columns that two rows must share to be paired."""

    protocol: str
    stride: int | None
    length: int
    targets_hash: str
    corpus: str = ""  # "" for the text of the runs

    @property
    def family(self) -> Family:
        """The table of a row: one text, protocol and set of targets.

        A protocol whose lengths have targets of their own is one family. Families sort like their tables: the runs'
        own text first, then same_targets.
        """
        targets = "" if is_moving(self.protocol) else self.targets_hash
        return (self.corpus, self.protocol != "same_targets", self.protocol, self.stride or 0, targets)


Curve = dict[Key, dict[int, Row]]  # rows by seed; the key measured last comes last


@dataclass(frozen=True)
class Pair:
    """The rows of two curves at one key, of the seeds in common, in order of seed."""

    base: str
    other: str
    key: Key
    seeds: tuple[int, ...]
    base_rows: list[Row]
    other_rows: list[Row]

    @property
    def targets(self) -> int:
        return self.other_rows[0].targets or 0

    def failures(self) -> list[str]:
        """Return one text per curve and status other than ok, such as `learned undefined (seeds 0, 1)`."""
        found = []
        for name, rows in ((self.base, self.base_rows), (self.other, self.other_rows)):
            statuses = [row.outcome.split(":")[0] for row in rows]
            for status in dict.fromkeys(statuses):
                if status != "ok":
                    failed = [seed for seed, of_seed in zip(self.seeds, statuses, strict=True) if of_seed == status]
                    found.append(f"{name} {status} ({of_seeds(failed)})")
        return found

    def rows(self) -> list[tuple[Row, Row]]:
        """Return (row of the other, row of the base) by seed."""
        return list(zip(self.other_rows, self.base_rows, strict=True))


@dataclass(frozen=True)
class Comparison(Pair):
    """A pair with its result.

    `difference` is the loss of `other` less that of `base`, in nats per token; where it is None, `word` gives the
    reason. `primary` marks the comparison of two curves that counts first; its `adjusted` is p after Holm's correction
    over the compared curves. That of the others is the joint p of the curve's other lengths under one protocol.
    """

    difference: Estimate | None
    adjusted: float | None
    word: str
    primary: bool

    @property
    def losses(self) -> tuple[float, float]:
        """The mean losses of the base and of the other over the seeds in common."""
        return float(np.mean([row.loss for row in self.base_rows])), float(np.mean([r.loss for r in self.other_rows]))

    @property
    def floor(self) -> float | None:
        """The least p that the seeds support."""
        return p_floor(1 + self.difference.seeds_df) if self.difference else None


def curves(rows: list[Row], name_of: Callable[[Row], str]) -> dict[str, Curve]:
    """Return the comparable rows by curve; the last row of a curve, seed and key counts."""
    found: dict[str, Curve] = {}
    # a text can be external for one run and the training text of another: the hash identifies the text
    own = {row.targets_hash for row in rows if not row.corpus}
    for row in rows:
        if not row.control:
            curve = found.setdefault(name_of(row), {})
            corpus = "" if row.targets_hash in own else row.corpus or ""
            key = Key(row.protocol, row.stride, row.length, row.targets_hash, corpus)
            curve[key] = curve.pop(key, {})
            curve[key][row.seed] = row
    return found


def pairs_of(base: str, other: str, of_curve: dict[str, Curve], protocols: set[str]) -> tuple[list[Pair], list[str]]:
    """Return (pairs by text, protocol, set of targets and length; notes).

    If each length has targets of its own, the targets that most runs share are used, and the latest among equals.
    Raises Misuse if the curves have nothing in common.
    """
    one, two = (
        {key: rows for key, rows in of_curve[name].items() if key.protocol in protocols} for name in (base, other)
    )
    shared = [key for key in reversed(two) if key in one and one[key].keys() & two[key].keys()]
    if not shared:
        raise Misuse(why_nothing(base, other, one, two))
    weight: dict[tuple[Family, str], int] = {}
    for key in shared:
        targets = (key.family, key.targets_hash)
        weight[targets] = weight.get(targets, 0) + len(one[key].keys() & two[key].keys())
    shared.sort(key=lambda key: -weight[key.family, key.targets_hash])
    chosen = {(key.family, key.length): key for key in reversed(shared)}
    found = []
    for place in sorted(chosen):
        key = chosen[place]
        seeds = tuple(sorted(one[key].keys() & two[key].keys()))
        found.append(Pair(base, other, key, seeds, [one[key][s] for s in seeds], [two[key][s] for s in seeds]))
    return found, notes_of(base, other, one, two, chosen)


def notes_of(base: str, other: str, one: Curve, two: Curve, chosen: dict[tuple[Family, int], Key]) -> list[str]:
    """Return a note for everything that both curves have and that is not compared."""
    notes = []
    for name, own, partner, theirs in ((base, one, other, two), (other, two, base, one)):
        seeds, others = ({seed for rows in curve.values() for seed in rows} for curve in (own, theirs))
        if alone := sorted(seeds - others):
            notes.append(
                f"{name} {of_seeds(alone)}: not compared, since {partner} lacks {'it' if len(alone) == 1 else 'them'}"
            )
    places, of_one, of_two = (
        {(key.corpus, key.protocol, key.length) for key in keys} for keys in (chosen.values(), one, two)
    )
    for _, protocol, length in sorted((of_one & of_two) - places):
        notes.append(f"{base} and {other}, {protocol} at {length}: not compared, since their targets or strides differ")
    return notes


def why_nothing(base: str, other: str, one: Curve, two: Curve) -> str:
    """Return the reason why two curves cannot be compared."""
    for name, curve in ((base, one), (other, two)):
        if not curve:
            return f"{name} has no rows that can be compared: run posexp eval"
    seeds = [sorted({seed for rows in curve.values() for seed in rows}) for curve in (one, two)]
    if not set(seeds[0]) & set(seeds[1]):
        return f"{base} ({of_seeds(seeds[0])}) and {other} ({of_seeds(seeds[1])}) have no seed in common"
    if {(key.protocol, key.length) for key in one} & {(key.protocol, key.length) for key in two}:
        return f"{base} and {other} were measured on different targets: run one posexp eval for both"
    return f"{base} and {other} have no protocol and length in common: run one posexp eval for both"


def declared(of_curve: dict[str, Curve], names: list[str]) -> tuple[int | None, str]:
    """Return the primary length that the rows of curves declare, None unless it is one, and a text that says so."""
    found = {row.primary for name in names for rows in of_curve[name].values() for row in rows.values() if row.primary}
    if len(found) == 1:
        (length,) = found
        return length, f"{length}, as the runs declare (where it is missing, the longest)"
    why = f"declare {', '.join(map(str, sorted(found)))}" if found else "declare none"
    return None, f"the longest, since the runs {why}"


def compared(pairs: list[Pair], length: int | None = None) -> list[Comparison]:
    """Compare pairs with one base, in order; seed variances are pooled over the pairs of each key.

    The primary comparison of each pair of curves is that at `length`, or at the longest if None or missing, under the
    first protocol (same_targets if measured).
    """
    words = ["; ".join(pair.failures()) for pair in pairs]
    samples = {}
    for index, pair in enumerate(pairs):
        try:
            if not words[index]:
                samples[index] = differences(pair.rows())
        except Misuse as error:
            words[index] = str(error)
    known: dict[int, Estimate] = {}
    for members in grouped(samples, lambda index: pairs[index].key):
        known |= zip(members, estimates([samples[index] for index in members]), strict=True)
    primaries = [primary_of(pairs, of_pair, length) for of_pair in grouped(range(len(pairs)), lambda i: pairs[i].other)]
    p_of = {index: one.p for index, one in known.items()}
    adjusted = dict(zip(primaries, holm([p_of.get(index) for index in primaries]), strict=True))
    rest = [index for index, p in p_of.items() if p is not None and index not in adjusted]
    for members in grouped(rest, lambda index: (pairs[index].other, pairs[index].key.family)):
        alike = len(grouped(members, lambda index: (pairs[index].seeds, documents_of(pairs[index])))) == 1
        ones = [known[index] for index in members]
        of_lengths = joint(ones, [samples[index] for index in members]) if alike else holm([one.p for one in ones])
        adjusted |= zip(members, of_lengths, strict=True)
    return [
        Comparison(
            **vars(pair),
            difference=known.get(index),
            adjusted=adjusted.get(index),
            word=words[index] or word_of(pair, known[index], adjusted.get(index)),
            primary=index in primaries,
        )
        for index, pair in enumerate(pairs)
    ]


def grouped(members: Iterable[T], key: Callable[[T], object]) -> list[list[T]]:
    """Return the members in groups of equal key, in order of appearance."""
    found: dict[object, list[T]] = {}
    for one in members:
        found.setdefault(key(one), []).append(one)
    return list(found.values())


def primary_of(pairs: list[Pair], members: list[int], length: int | None) -> int:
    """Return the member that is the primary comparison; of several sets of targets, the one with most targets."""
    first = min(pairs[index].key.family[:3] for index in members)
    of_protocol = [index for index in members if pairs[index].key.family[:3] == first]
    at_length = [index for index in of_protocol if pairs[index].key.length == length]
    return max(at_length or of_protocol, key=lambda index: (pairs[index].key.length, pairs[index].targets))


def documents_of(pair: Pair) -> tuple[int, ...]:
    sums = pair.base_rows[0].sums
    return () if sums is None else tuple(sums.documents.tolist())


def word_of(pair: Pair, difference: Estimate, adjusted: float | None) -> str:
    """Return the verdict on a comparison."""
    if abs(difference.value) < ROUNDING:
        return EQUAL
    if adjusted is None or adjusted >= ALPHA:
        return CANNOT_TELL
    if len(pair.base_rows) < LEAST_SEEDS and any(row.origin != "checkpoint" for row in pair.base_rows):
        return TOO_FEW
    return f"{pair.other if difference.value < 0 else pair.base} is better"


def of_seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
