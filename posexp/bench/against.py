"""The comparison of a measurement with a recorded one: posexp bench --against <folder or file>."""

import math
from pathlib import Path
from typing import Any

from posexp.bench.interleave import OK
from posexp.bench.rows import Row, cell
from posexp.errors import Misuse
from posexp.output.grid import Grid
from posexp.report.bench_records import Record, differing, read_records

SPEED, ERRORS = 0.05, 3  # least change of speed that counts, relative and in standard errors
MEMORY, BYTES = 0.10, 64 << 20  # and of memory; a small pass on a CPU differs by tens of MiB from process to process
RULE = (
    f"Worse: × none lower by more than {SPEED:.0%} and by more than {ERRORS} standard errors of the two medians (the "
    f"tolerance of each row), or memory beside that of none higher by more than {MEMORY:.0%} and {BYTES >> 20} MiB."
)
SAME = ("device", "torch", "threads")  # where these are equal, tokens per second are shown too


def baseline_of(place: str, names: dict[str, Any], settings: dict[str, Any]) -> dict[str, Record]:
    """Return the records at `place` of contenders in `names` (name: components), by name.

    Raises Misuse if the place has no records, or none with these settings or of these contenders.
    """
    records = read_records(Path(place).expanduser())
    fitting = [record for record in records if not differing(record, settings)]
    if not fitting:
        others = "; ".join(differing(records[0], settings)[:6])
        raise Misuse(f"{place} is of another measurement: {others}. Type the same options, or name another baseline")
    found = {}
    for record in fitting:
        name, parts = record["contender"], record.get("components")
        if name in names and parts in (None, names[name]):
            found[name] = record
    if not found:
        there = ", ".join(record["contender"] for record in fitting)[:200]
        raise Misuse(f"{place} lacks these contenders with these options: name a baseline that has one. It has {there}")
    return found


def compare(rows: list[Row], baseline: dict[str, Record], note: dict[str, Any]) -> tuple[Grid, list[str]]:
    """Return the table of changes, and a phrase for each that is worse than its tolerance."""
    absolute = all(record.get(key) == note[key] for record in baseline.values() for key in SAME)
    heads = ["contender", "measurement", "× none", "was", "change", "tolerance", "memory × none", "was", "change"]
    lines, worse = [], []
    for row in rows:
        measured = baseline.get(row["contender"], {"measurements": []})["measurements"]
        old = next((each for each in measured if all(each[key] == row[key] for key in ("what", "length"))), None)
        if old is None or old["status"] != OK:
            continue
        where = f"{row['what']} at {row['length']:,}"
        speed, memory = (change(row[key], old[key]) for key in ("ratio_to_none", "memory_to_none"))
        tolerance = max(SPEED, ERRORS * math.hypot(row["ratio_error"] or 0, old["ratio_error"] or 0))
        if row["status"] != OK:
            worse.append(f"{row['contender']}, {where}: {row['status'][:60]}")
        if speed is not None and speed < -tolerance:
            worse.append(f"{row['contender']}, {where}: speed {speed:+.1%}")
        if memory is not None and memory > MEMORY and row["peak_memory"] * memory / (1 + memory) > BYTES:
            worse.append(f"{row['contender']}, {where}: memory {memory:+.1%}")
        lines.append(
            [row["contender"], where]
            + [cell(row["ratio_to_none"], ".2f"), cell(old["ratio_to_none"], ".2f"), cell(speed, "+.1%")]
            + [f"{tolerance:.1%}", cell(row["memory_to_none"], ".2f"), cell(old["memory_to_none"], ".2f")]
            + [cell(memory, "+.1%")]
            + [cell(change(row["tokens_per_second"], old["tokens_per_second"]), "+.1%")] * absolute
        )
    return Grid([*heads, *["tokens/s"] * absolute], lines, names=2, title="Beside the baseline"), worse


def change(new: float | None, old: float | None) -> float | None:
    """Return the relative change, or None without both values."""
    return new / old - 1 if new and old else None
