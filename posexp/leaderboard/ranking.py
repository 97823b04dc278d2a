"""The rule of entry, and the order of the entries of a track."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from posexp.errors import Misuse
from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.group import Group
from posexp.evaluation.published import readable
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import ALPHA, Ratio
from posexp.evaluation.verdicts import LEAST_SEEDS, Verdict
from posexp.leaderboard.track import Track, differing
from posexp.output.text import one_line
from posexp.report.bench_records import components_of
from posexp.report.fairness import facts_of
from posexp.report.tables import Table, tables
from posexp.runs.run import Run

RULE = f"e + t(0.975, n − 1) · s / √n ≤ gate, with n ≥ {LEAST_SEEDS}"
SAME = 1e-6  # nats by which the best possible loss may differ between machines


@dataclass(frozen=True)
class Standard:
    """What the first study of a track fixes: token store, and by length the hash of the targets and the least excess.

    `optimum` has the best possible loss in nats, or for a task the share of wrong examples, 0.
    """

    store: str
    targets: dict[int, str]
    optimum: dict[int, float]


@dataclass(frozen=True)
class Entry:
    """A curve on a track. `excess` is the mean loss at the training length less the best possible one, and `upper`
    the left side of the rule, both in nats; NaN if unknown. For a task they are shares of wrong examples, as `loss` is.

    `failed` has the conditions that it does not meet. `shares` has captured gains, or for a task exact match with the
    lowest and the highest seed. `usable` is the usable size, 0 if none. `speed` is in training tokens per second,
    as posexp report measures it, or relative to `none` in a bench, which has its relative standard error too.
    """

    curve: str
    seeds: int
    loss: float
    excess: float
    upper: float
    failed: tuple[str, ...]
    verdicts: dict[int, Verdict]  # by length; {} for a task
    shares: dict[int, Ratio]  # by length
    speed: float | None
    devices: frozenset[str]
    commits: tuple[str, ...]
    speed_error: float = 0.0
    usable: int = 0


def upper_limit(excesses: list[float]) -> tuple[float, float]:
    """Return the mean e and e + t(0.975, n − 1) · s / √n of n numbers; NaN for what is unknown."""
    from scipy import special

    count = len(excesses)
    if count < 2:
        return (excesses or [math.nan])[0], math.nan
    mean = fmean(excesses)
    return mean, mean + float(special.stdtrit(count - 1, 1 - ALPHA / 2)) * stdev(excesses) / math.sqrt(count)


def standard_of(track: Track, study: Group) -> Standard:
    """Return what the entrants of a study fix. Raises Misuse if none has rows at the lengths of the track."""
    rows = [row for row in study.rows if is_plain(track, row) and (track.is_task or row.optimum is not None)]
    hashes: dict[int, Counter[str]] = {}
    for row in rows:
        hashes.setdefault(row.length, Counter())[row.targets_hash] += 1
    targets = {length: max(found, key=found.__getitem__) for length, found in hashes.items()}
    if not track.is_task:  # all lengths score the same tokens
        most = targets.get(track.primary, "")
        targets = {length: most for length, found in hashes.items() if most in found}
    if not {track.length, track.primary} <= targets.keys():
        raise Misuse(f"no run has the options of configs/leaderboard/{track.name}.yaml and the rows of the track")
    optimum = {row.length: row.optimum or 0.0 for row in rows if row.targets_hash == targets.get(row.length)}
    return Standard(str(study.runs[0].provenance().get("store")), targets, optimum)


def is_plain(track: Track, row: Row) -> bool:
    return row.protocol == track.protocol and not (row.control or row.variant or row.corpus)


def loss_of(track: Track, row: Row) -> float:
    """Return the loss in nats, or for a task the share of wrong examples."""
    return 1 - (row.exact_match or 0.0) if track.is_task else row.loss


def entries_of(
    track: Track,
    standard: Standard,
    group: Group,
    say: Callable[[str], None],
    speeds: list[tuple[dict[str, Any], tuple[float, float]]] | None = None,
) -> list[Entry]:
    """Return the curves of a group in order of rank, and last those that are not tested.

    `speeds` has the components of curves with their speeds in a bench; None: those of the runs.
    """
    curves: dict[str, list[Run]] = {}
    for run in readable(group):
        curves.setdefault(group.curve_of[run.name], []).append(run)
    pairs = Pairs(group.labelled(), group.curve_of, group.recipe_of)
    verdicts = [one for one in pairs.verdicts(say) if standard.targets.get(one.place.length) == one.place.targets_hash]
    every = [row for row in group.rows if is_plain(track, row)]
    every = [row for row in every if standard.targets.get(row.length) == row.targets_hash]
    solved = tables(every, group.curve_of)[0] if track.is_task and every else None
    found = []
    for curve, runs in curves.items():
        names = {run.name for run in runs}
        rows = [row for row in every if row.run in names]
        own = {one.place.length: one for one in verdicts if one.place.curve == curve}
        entry = entry_of(track, standard, curve, runs, rows, own)
        if solved is not None:
            entry = replace(entry, shares=exact_matches(solved, curve), usable=solved.usable_size(curve))
        if speeds is not None:
            own_parts = components_of(runs[0].config())
            speed, error = next((speed for parts, speed in speeds if parts == own_parts), (None, 0.0))
            entry = replace(entry, speed=speed, speed_error=error, devices=frozenset())
        found.append(entry)
    return sorted(found, key=lambda entry: order(track, entry))


def exact_matches(table: Table, curve: str) -> dict[int, Ratio]:
    """Return the exact match of a curve by size, as a share, with the lowest and the highest seed."""
    return {
        length: Ratio(cell.exact_match, *(cell.exact_match_bounds or (None, None)))
        for (name, length), cell in table.cells.items()
        if name == curve and cell.exact_match is not None
    }


def entry_of(
    track: Track, standard: Standard, curve: str, runs: list[Run], rows: list[Row], verdicts: dict[int, Verdict]
) -> Entry:
    losses = {row.seed: loss_of(track, row) for row in rows if row.length == track.length and row.outcome == "ok"}
    excess, upper = upper_limit([loss - standard.optimum[track.length] for loss in losses.values()])
    failed = [f"{run.name}: {fault}" for run in runs for fault in faults(track, standard, run, rows)]
    if len(losses) < LEAST_SEEDS:
        failed.append(f"{curve} has {len(losses)} seeds, and {LEAST_SEEDS} are needed")
    elif not upper <= track.gate:
        failed.append(f"{curve} misses the gate: {excess:.4f} {track.gap}, at most {upper:.4f} > {track.gate:g}")
    facts = [facts_of(run, 0) for run in runs]
    speeds = [one.speed for one in facts if one.speed]
    devices = frozenset(one.device for one in facts)
    commits = dict.fromkeys(one_line(str(run.provenance().get("commit") or "?"))[:9] for run in runs)
    loss = fmean(losses.values()) if losses else math.nan
    speed, shares = max(speeds, default=None), {n: one.captured for n, one in verdicts.items() if one.captured}
    return Entry(
        curve, len(losses), loss, excess, upper, tuple(failed), verdicts, shares, speed, devices, tuple(commits)
    )


def faults(track: Track, standard: Standard, run: Run, rows: list[Row]) -> list[str]:
    """Return the conditions that a run does not meet. `rows` are on the targets of the track."""
    found = differing(track, run.config())
    if (store := run.provenance().get("store")) != standard.store:
        found.append(f"its token store is {store}, and that of the track is {standard.store}")
    if not any(row.get("status") == "done" for row in run.history(lambda line: None)):
        found.append("its training is not finished")
    of = {row.length: row for row in rows if row.run == run.name}
    if missing := [length for length in (track.length, *track.lengths) if length not in of]:
        lengths = ", ".join(map(str, missing))
        found.append(f"{track.protocol} has no rows at {lengths} on the targets of the track")
    measured = [row for row in of.values() if row.outcome == "ok"]
    if not track.is_task and not all(row.sums and row.optimum_sums for row in measured):
        found.append("its rows lack losses by document")
    elif any(abs((row.optimum or 0.0) - standard.optimum.get(row.length, 0.0)) > SAME for row in measured):
        found.append("its best possible loss is not that of the track")
    return found


def order(track: Track, entry: Entry) -> tuple[bool, bool, float, float, str]:
    """Return the sort key: tested first, and what has a value at the primary length; then the lower limit of the
    captured gain there, the highest first; then the upper limit of the change of the loss, the lowest first.

    For a task, the usable size decides, then exact match at the primary size, both the highest first.
    """
    if track.is_task:
        solved = entry.shares.get(track.primary)
        return bool(entry.failed), solved is None, -entry.usable, -(solved.value if solved else 0.0), entry.curve
    verdict = entry.verdicts.get(track.primary)
    if verdict is None or verdict.failed or verdict.cropped is None:
        return bool(entry.failed), True, 0.0, 0.0, entry.curve
    captured, change = verdict.captured, verdict.cropped
    low = captured.low if captured is not None and captured.low is not None else -math.inf
    high = change.high if change.high is not None else math.inf
    return bool(entry.failed), False, -low, high, entry.curve
