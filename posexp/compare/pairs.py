"""The comparison of two curves, paired by seed and target: which is better at each length, and by how much."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from posexp.errors import Misuse
from posexp.evaluation.pairing import differences
from posexp.evaluation.plan import is_moving
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import ALPHA, Estimate, estimate, holm

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
    reason. `base_nll` and `other_nll` are means over the seeds in common. `adjusted` is p after Holm's correction over
    the lengths of the pair and protocol.
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


def compared(pairs: list[Pair]) -> list[Comparison]:
    """Compare the pairs of two curves, in order, with p adjusted over the lengths of each family."""
    raw = [one_by_one(pair) for pair in pairs]
    found = list(raw)
    for family in dict.fromkeys(c.key.family for c in raw):
        members = [index for index, c in enumerate(raw) if c.key.family == family]
        p_values = [c.difference.p if (c := raw[index]).difference else None for index in members]
        for index, adjusted in zip(members, holm(p_values), strict=True):
            found[index] = replace(raw[index], adjusted=adjusted, word=raw[index].word or word_of(raw[index], adjusted))
    return found


def one_by_one(pair: Pair) -> Comparison:
    """Compare one pair; p is not adjusted yet, and `word` is "" unless the pair cannot be compared."""
    targets = pair.other_rows[0].targets or 0
    nothing = Comparison(pair.base, pair.other, pair.key, pair.seeds, targets, None, None, None, None, "")
    if failures := pair.failures():
        return replace(nothing, word="; ".join(failures))
    try:
        difference = estimate(*differences(pair.rows()))
    except Misuse as error:
        return replace(nothing, word=str(error))
    nlls = [float(np.mean([row.loss for row in rows])) for rows in (pair.base_rows, pair.other_rows)]
    return replace(nothing, base_nll=nlls[0], other_nll=nlls[1], difference=difference)


def word_of(comparison: Comparison, adjusted: float | None) -> str:
    """Return the verdict on a comparison."""
    if comparison.difference is not None and abs(comparison.difference.value) < ROUNDING:
        return EQUAL
    if comparison.difference is None or adjusted is None or adjusted >= ALPHA:
        return CANNOT_TELL
    return f"{comparison.other if comparison.difference.value < 0 else comparison.base} is better"


def of_seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
