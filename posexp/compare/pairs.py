"""The comparison of two curves, paired by seed and target: which is better at each length, and by how much."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from posexp.errors import Misuse
from posexp.evaluation.multiplicity import holm, joint
from posexp.evaluation.pairing import differences
from posexp.evaluation.plan import is_moving
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import ALPHA, Estimate, estimates, p_floor

CANNOT_TELL = "cannot tell"
EQUAL = "equal"
ROUNDING = 1e-5  # nats: float32 rounding in another batch or library is smaller


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
class Comparison:
    """The result of a pair.

    `difference` is the loss of `other` less that of `base`, in nats per token; where it is None, `word` gives the
    reason. `base_nll` and `other_nll` are means over the seeds in common. `primary` marks the one comparison that
    counts first; its `adjusted` is p after Holm's correction over the compared curves. That of the others is the joint
    p of the pair's other lengths under one protocol.
    """

    base: str
    other: str
    key: Key
    seeds: tuple[int, ...]
    targets: int
    base_nll: float | None
    other_nll: float | None
    difference: Estimate | None
    adjusted: float | None
    word: str
    primary: bool = False

    @property
    def floor(self) -> float:
        """The least p that the seeds support."""
        return p_floor(1 + self.difference.seeds_df) if self.difference else 0.0


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
    found = [without_difference(pair) for pair in pairs]
    samples = {}
    for index, pair in enumerate(pairs):
        if not found[index].word:
            try:
                samples[index] = differences(pair.rows())
            except Misuse as error:
                found[index] = replace(found[index], word=str(error))
    for members in grouped(samples, lambda index: pairs[index].key):
        for index, one in zip(members, estimates([samples[index] for index in members]), strict=True):
            nlls = (float(np.mean([row.loss for row in r])) for r in (pairs[index].base_rows, pairs[index].other_rows))
            found[index] = replace(found[index], difference=one, base_nll=next(nlls), other_nll=next(nlls))
    primaries = [primary_of(found, members, length) for members in grouped(range(len(found)), lambda i: found[i].other)]
    p_values = [one.p if (one := found[index].difference) else None for index in primaries]
    for index, adjusted in zip(primaries, holm(p_values), strict=True):
        found[index] = replace(found[index], adjusted=adjusted, primary=True)
    rest = [i for i in samples if not found[i].primary and (one := found[i].difference) and one.p is not None]
    for members in grouped(rest, lambda index: (found[index].other, found[index].key.family)):
        ones = [one for index in members if (one := found[index].difference)]
        alike = len(grouped(members, lambda index: (pairs[index].seeds, documents_of(pairs[index])))) == 1
        joints = joint(ones, [samples[index] for index in members]) if alike else holm([one.p for one in ones])
        for index, adjusted in zip(members, joints, strict=True):
            found[index] = replace(found[index], adjusted=adjusted)
    return [replace(one, word=one.word or word_of(one, one.adjusted)) for one in found]


def grouped(indices: Iterable[int], key: Callable[[int], object]) -> list[list[int]]:
    """Return the indices in groups of equal key, in order of appearance."""
    found: dict[object, list[int]] = {}
    for index in indices:
        found.setdefault(key(index), []).append(index)
    return list(found.values())


def without_difference(pair: Pair) -> Comparison:
    """Return the comparison of a pair before it is computed; `word` is "" unless the pair cannot be compared."""
    targets, word = pair.other_rows[0].targets or 0, "; ".join(pair.failures())
    return Comparison(pair.base, pair.other, pair.key, pair.seeds, targets, None, None, None, None, word)


def primary_of(found: list[Comparison], members: list[int], length: int | None) -> int:
    """Return the member that is the primary comparison; of several sets of targets, the one with most targets."""
    first = min(found[index].key.family[:3] for index in members)
    of_protocol = [index for index in members if found[index].key.family[:3] == first]
    at_length = [index for index in of_protocol if found[index].key.length == length]
    return max(at_length or of_protocol, key=lambda index: (found[index].key.length, found[index].targets))


def documents_of(pair: Pair) -> tuple[int, ...]:
    sums = pair.base_rows[0].sums
    return () if sums is None else tuple(sums.documents.tolist())


def word_of(comparison: Comparison, adjusted: float | None) -> str:
    """Return the verdict on a comparison."""
    if comparison.difference is not None and abs(comparison.difference.value) < ROUNDING:
        return EQUAL
    if comparison.difference is None or adjusted is None or adjusted >= ALPHA:
        return CANNOT_TELL
    return f"{comparison.other if comparison.difference.value < 0 else comparison.base} is better"


def of_seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
