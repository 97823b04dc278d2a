"""The tables of a report, which group comparable eval rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from posexp.evaluation.contrasts import PROTOCOL
from posexp.evaluation.plan import PROTOCOLS, is_moving
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import Estimate
from posexp.evaluation.tasks import by_index, exact_match
from posexp.evaluation.verdicts import Place, Usable, Verdict, usable
from posexp.output.text import one_line
from posexp.report.cell import Cell, cell_of
from posexp.report.metric import EXACT_MATCH, PPL, TOKEN_ACCURACY, USABLE_EXACT_MATCH, Metric, Value

MAX_LENGTHS = 200  # in a table
OWN_MEASURE = {exact_match.__name__: EXACT_MATCH, by_index.__name__: TOKEN_ACCURACY}  # of protocols of tasks

Family = tuple[str, int | None, int | str, str]  # protocol, stride, and a node of its component
Targets = str | tuple[Family, int]
TableKey = tuple[str, int | None, Targets]


@dataclass(frozen=True)
class Table:
    """A table of curves by lengths under one protocol, on one set of targets.

    If each length scores its own targets, all cells of a length share theirs and `targets_hashes` has one entry per
    length. `measure` is the metric of the values. `verdicts` are on context beyond the training length.
    """

    protocol: str
    stride: int | None
    targets_hashes: tuple[str, ...]
    targets: tuple[int, ...]  # distinct counts
    documents: tuple[int, ...]  # with targets, distinct counts
    lengths: tuple[int, ...]
    curves: tuple[str, ...]
    seeds: dict[str, int]  # of each curve
    trained: dict[str, tuple[int, ...]]  # training lengths of each curve, tokens
    cells: dict[tuple[str, int], Cell]
    notes: tuple[str, ...]  # failure messages too long for a cell
    crossing: float = 0.0  # largest share of targets at a length with context from another document
    corpus: str = ""  # if it is not that of the runs
    measure: Metric = PPL
    verdicts: tuple[Verdict, ...] = ()

    @property
    def usable(self) -> list[Usable]:
        return usable(self.verdicts, {curve: min(lengths) for curve, lengths in self.trained.items()}, self.lengths)

    def usable_size(self, curve: str) -> int:
        """Return the largest size up to which every measured size has a mean exact match of USABLE_EXACT_MATCH.

        0 if not even the smallest has.
        """
        usable = 0
        for length in self.lengths:
            value = self.values.get((curve, length))
            if value is None or value.value < USABLE_EXACT_MATCH:
                break
            usable = length
        return usable

    def shown_size(self, curve: str) -> str:
        """Return the usable size as text. A + says that it is the largest measured size."""
        usable = self.usable_size(curve)
        return f"{usable}{'+' * (usable == self.lengths[-1])}" if usable else "–"

    @cached_property
    def verdict_at(self) -> dict[tuple[str, int], Verdict]:
        """The verdicts by curve and length."""
        return {(verdict.place.curve, verdict.place.length): verdict for verdict in self.verdicts}

    @cached_property
    def words(self) -> dict[tuple[str, int], str]:
        """The words of the verdicts, by curve and length."""
        return {key: verdict.word for key, verdict in self.verdict_at.items()}

    def place(self, curve: str, length: int) -> Place:
        """Return the key of a cell's verdict and change."""
        return Place(curve, length, self.targets_hashes[0], self.stride)

    @property
    def train_lengths(self) -> tuple[int, ...]:
        return tuple(sorted({length for lengths in self.trained.values() for length in lengths}))

    @cached_property
    def begins_at_zero(self) -> bool:
        """Whether the table has a length of 0, which a logarithmic axis cannot show."""
        return min(*self.lengths, *self.train_lengths) <= 0

    @property
    def title(self) -> str:
        known = PROTOCOLS.get(self.protocol)
        if known is None:  # rows of another version of posexp
            return f"{self.measure.title}, {one_line(self.protocol)}"
        return f"{self.measure.title} {known.title}"

    @property
    def axis(self) -> str:
        """The label of the axis of lengths."""
        known = PROTOCOLS.get(self.protocol)
        return known.axis if known else "length, tokens"

    @property
    def drawn_only(self) -> bool:
        if len(self.lengths) > MAX_LENGTHS:
            return True
        return self.protocol in PROTOCOLS and PROTOCOLS[self.protocol].drawn_only

    @cached_property
    def values(self) -> dict[tuple[str, int], Value]:
        """The values of the metric, by curve and length, for cells that have it."""
        found = {key: self.measure.of(cell) for key, cell in self.cells.items()}
        return {key: value for key, value in found.items() if value is not None}

    @property
    def lacking(self) -> bool:
        """Whether there are results, but none has the metric."""
        return not self.values and any(cell.nll is not None for cell in self.cells.values())


def tables(
    rows: list[Row],
    curve_of: dict[str, str],
    measure: Metric = PPL,
    verdicts: Sequence[Verdict] = (),
    changes: dict[Place, Estimate] | None = None,
) -> list[Table]:
    """Return one table per (protocol, stride, targets), the headline first and those of other corpora last.

    Rows of controls are skipped, as only verdicts use them. `curve_of` maps run folder names to curve labels, and runs
    with the same label are seeds of one curve. A run without a label is a separate curve, and so is each evaluation
    with a transform or another window. If a curve, run and length has several rows, the last one counts. Tasks show
    exact match, and places in answers token accuracy; with that as `measure` all tables show it. Verdicts and changes
    are added only to the table with their targets.
    """
    rows = [row for row in rows if not row.control]
    sets = target_sets(rows)
    parts: dict[TableKey, list[Row]] = {}
    latest: dict[TableKey, int] = {}
    for index, (row, targets) in enumerate(zip(rows, sets, strict=True)):
        key = (row.protocol, row.stride, targets)
        parts.setdefault(key, []).append(row)
        latest[key] = index

    def order(key: TableKey) -> tuple[bool | int | str, ...]:
        """Return the sort key of a table. Within a protocol, more runs come first, then more documents and targets."""
        known, members = list(PROTOCOLS), parts[key]
        rank = known.index(key[0]) if key[0] in known else len(known)
        elsewhere = all(row.corpus for row in members)
        sizes = -max(row.documents or 0 for row in members), -max(row.targets or 0 for row in members)
        longest = max(row.length for row in members)
        return elsewhere, rank, key[0], -len({row.run for row in members}), *sizes, longest, -latest[key]

    found = [table_of(parts[key], curve_of, measure) for key in sorted(parts, key=order)]
    return [judged(table, verdicts, changes or {}) for table in found]


def judged(table: Table, verdicts: Sequence[Verdict], changes: dict[Place, Estimate]) -> Table:
    """Return the table with its changes and verdicts, but no verdicts if they lack curves and have no differences."""
    if table.protocol != PROTOCOL:
        return table
    cells = {key: replace(cell, change=change_of(table, *key, changes)) for key, cell in table.cells.items()}
    places = {table.place(*key) for key in table.cells}
    own = tuple(verdict for verdict in verdicts if verdict.place in places)
    every = {verdict.place.curve for verdict in own} == set(table.curves)
    return replace(table, cells=cells, verdicts=own if every or any(verdict.cropped for verdict in own) else ())


def change_of(table: Table, curve: str, length: int, changes: dict[Place, Estimate]) -> Estimate | None:
    """Return the paired change, else the difference of means without an interval, None unless seeds are the same."""
    known = changes.get(table.place(curve, length))
    own, trained = table.cells[curve, length], table.cells.get((curve, min(table.trained[curve])))
    if known or trained is None or own.nll is None or trained.nll is None:
        return known
    same_seeds = own.seeds == trained.seeds and not own.failures and not trained.failures
    return Estimate(own.nll - trained.nll, None, None, None, None, own.seeds, 0) if same_seeds else None


def target_sets(rows: list[Row]) -> list[Targets]:
    """Return a key for the targets of each row. Rows with different keys cannot share a table.

    The key is the hash of the targets. For protocols in which each length scores its own targets, it is (family, rank),
    where rank 0 is for the targets that most runs of the family share at the row's length.
    """
    family_of = families(rows)
    runs: dict[tuple[Family, int], dict[str, dict[str, int]]] = {}
    for index, (row, family) in enumerate(zip(rows, family_of, strict=True)):
        at = runs.setdefault((family, row.length), {})
        at.setdefault(row.targets_hash, {})[row.run] = index
    rank_of: dict[tuple[Family, int], dict[str, int]] = {}
    for place, at in runs.items():
        common = sorted(at, key=lambda hash_: (-len(at[hash_]), -max(at[hash_].values())))
        rank_of[place] = {hash_: rank for rank, hash_ in enumerate(common)}
    return [
        (family, rank_of[family, row.length][row.targets_hash]) if is_moving(row.protocol) else row.targets_hash
        for row, family in zip(rows, family_of, strict=True)
    ]


def families(rows: list[Row]) -> list[Family]:
    """Return each row's family: the component of runs that share targets under one protocol and stride."""
    above: dict[Family, Family] = {}

    def top(node: Family) -> Family:
        while above.setdefault(node, node) != node:
            above[node] = node = above[above[node]]  # halves the path, which would grow with the runs
        return node

    run_nodes: list[Family] = [(row.protocol, row.stride, "run", row.run) for row in rows]
    for row, node in zip(rows, run_nodes, strict=True):
        above[top((row.protocol, row.stride, row.length, row.targets_hash))] = top(node)
    return [top(node) for node in run_nodes]


def table_of(rows: list[Row], curve_of: dict[str, str], measure: Metric) -> Table:
    """Return the table of `rows`, which must share their protocol and stride."""
    kept: dict[tuple[str, str, int], Row] = {(row.run, row.variant, row.length): row for row in rows}
    members: dict[tuple[str, int], list[Row]] = {}
    runs: dict[str, set[str]] = {}
    trained: dict[str, set[int]] = {}
    for (run, variant, length), row in kept.items():
        curve = curve_of.get(run, run) + variant
        members.setdefault((curve, length), []).append(row)
        runs.setdefault(curve, set()).add(run)
        trained.setdefault(curve, set()).add(row.train_length)
    notes = [f"{row.run} at {row.length}: {one_line(row.outcome)}" for row in kept.values() if ":" in row.outcome]
    first = rows[0]
    return Table(
        protocol=first.protocol,
        stride=first.stride,
        targets_hashes=tuple(dict.fromkeys(row.targets_hash for row in kept.values())),
        targets=counts_of(row.targets for row in kept.values()),
        documents=counts_of(row.documents for row in kept.values()),
        lengths=tuple(sorted({row.length for row in kept.values()})),
        curves=tuple(sorted(runs)),
        seeds={curve: len(names) for curve, names in runs.items()},
        trained={curve: tuple(sorted(lengths)) for curve, lengths in trained.items()},
        cells={key: cell_of(seeds) for key, seeds in members.items()},
        notes=tuple(dict.fromkeys(notes)),
        crossing=max(row.crossing_share or 0.0 for row in kept.values()),
        corpus=", ".join(dict.fromkeys(row.corpus for row in kept.values() if row.corpus)),
        measure=OWN_MEASURE.get(first.protocol, measure) if measure != TOKEN_ACCURACY else measure,
    )


def counts_of(counts: Iterable[int | None]) -> tuple[int, ...]:
    return tuple(sorted({count for count in counts if count is not None}))


def facts(table: Table) -> str:
    """Return the facts of a table: targets with hash and documents, stride, corpus, crossed documents, seeds."""
    parts = []
    if table.targets:
        parts.append(f"{number_range(table.targets)} targets" + (" a point" if len(table.targets) > 1 else ""))
    hashes = [name[:8] for name in table.targets_hashes if name]
    if len(hashes) > 1:
        parts[-1:] = [f"{parts[-1]}, others at every length" if parts else "other targets at every length"]
    elif hashes and table.targets:
        parts[-1] += f" {hashes[0]}"
    elif hashes:
        parts.append(f"targets {hashes[0]}")
    if table.documents and parts:
        parts[-1] += f" in {counted(table.documents, 'document')}"
    if table.stride is not None:
        parts.append(f"stride {table.stride}")
    parts += [f"of {table.corpus}"] if table.corpus else []
    if table.crossing > 0:
        share = f"{100 * table.crossing:.0f} %" if table.crossing >= 0.01 else "less than 1 %"
        parts.append(f"up to {share} of targets see another document")
    return " · ".join([*parts, counted(counts_of(table.seeds.values()), "seed")])


def counted(numbers: tuple[int, ...], noun: str) -> str:
    return f"{number_range(numbers)} {noun}{'s' * (numbers != (1,))}"


def number_range(numbers: tuple[int, ...]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in numbers)
