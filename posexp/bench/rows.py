"""The rows of a bench: medians over rounds, ratios of two contenders in the same rounds, and tables of them."""

import statistics
from typing import Any

import numpy as np

from posexp.bench.interleave import OK, Measured
from posexp.output.grid import Grid

COLUMNS = (
    *("contender", "kind", "what", "length", "status", "tokens_per_second", "lower_quartile", "upper_quartile"),
    *("ratio_to_none", "ratio_to_fastest_peer", "peak_memory", "parameters", "flops_per_token", "mfu", "matmul_flops"),
    *("path", "matmul"),
)
LEGEND = (
    "× none: speed relative to the scheme none in the same rounds. × peer: relative to the fastest peer. MiB: peak "
    "memory of a pass above that of the process before the model was built. MFU: model FLOPs per second (6 or 2 for "
    "each weight and token, and causal attention) relative to a product of 2048 x 2048 matrices in the same process "
    "and rounds."
)
Row = dict[str, Any]  # keys are COLUMNS; None if there is no value


def rows_of(found: list[Measured], base: str) -> list[Row]:
    """Return one row for each of `found`.

    Speeds are in tokens per second, memory in bytes, `matmul_flops` in operations per second. Ratios are of speeds, to
    the contender `base` and to the peer with the highest median; above 1 is faster.
    """
    rows = []
    for one in found:
        beside = [other for other in found if (other.what, other.length) == (one.what, one.length) and other.seconds]
        bases = [other for other in beside if other.contender.name == base and not other.contender.peer]
        peers = sorted((other for other in beside if other.contender.peer), key=lambda other: np.median(speeds(other)))
        rows.append(row_of(one, bases[0] if bases else None, peers[-1] if peers else None))
    return rows


def row_of(one: Measured, base: Measured | None, peer: Measured | None) -> Row:
    row: Row = dict.fromkeys(COLUMNS) | {
        "contender": one.contender.name,
        "kind": "peer" if one.contender.peer else "posexp",
        "what": one.what,
        "length": one.length,
        "status": one.status,
        "parameters": one.facts.get("parameters"),
        "path": one.facts.get("path"),
        "matmul": one.facts.get("details", {}).get("matmul"),
        "peak_memory": one.peak_memory,
    }
    if not one.seconds:
        return row
    quartiles = np.quantile(speeds(one), [0.25, 0.5, 0.75]).tolist()
    row |= zip(("lower_quartile", "tokens_per_second", "upper_quartile"), quartiles, strict=True)
    rates = [one.flops_per_token * speed for speed in speeds(one)]
    return row | {
        "ratio_to_none": ratio(one, base),
        "ratio_to_fastest_peer": ratio(one, peer),
        "flops_per_token": one.flops_per_token,
        "mfu": statistics.median(rate / peak for rate, peak in zip(rates, one.matmul_peaks, strict=True)),
        "matmul_flops": statistics.median(one.matmul_peaks),
    }


def speeds(one: Measured) -> list[float]:
    """Return tokens per second by round."""
    return [one.tokens / seconds for seconds in one.seconds.values()]


def ratio(one: Measured, other: Measured | None) -> float | None:
    """Return the median ratio of speeds over shared rounds, or None without any."""
    if other is None:
        return None
    pairs = [(other.seconds[index], seconds) for index, seconds in one.seconds.items() if index in other.seconds]
    share = one.tokens / other.tokens
    return share * statistics.median(theirs / ours for theirs, ours in pairs) if pairs else None


def bench_tables(rows: list[Row]) -> list[Grid]:
    """Return a table for training and for each evaluation length, with contenders in order of training speed."""
    training = sorted((row for row in rows if row["what"] == "training"), key=lambda row: -(row["ratio_to_none"] or 0))
    order = [(row["kind"], row["contender"]) for row in training]
    heads = ["contender", "path", "parameters", "tokens/s", "quartiles", "× none", "MiB", "MFU"]
    if peers := any(row["kind"] == "peer" for row in rows):
        heads.insert(6, "× peer")
    tables = []
    for what, length in dict.fromkeys((row["what"], row["length"]) for row in rows):
        here = [row for row in rows if (row["what"], row["length"]) == (what, length)]
        lines = []
        for row in sorted(here, key=lambda row: order.index((row["kind"], row["contender"]))):
            speed = cell(row["tokens_per_second"], ",.0f") if row["status"] == OK else row["status"]
            lower, upper = (cell(row[name], ",.0f") for name in ("lower_quartile", "upper_quartile"))
            quartiles = f"{lower} - {upper}" if row["tokens_per_second"] else "–"
            ratios = [cell(row["ratio_to_none"], ".2f"), cell(row["ratio_to_fastest_peer"], ".2f")][: 1 + peers]
            memory = cell(row["peak_memory"] and row["peak_memory"] / 2**20, ",.0f")
            names = [row["contender"], row["path"] or "–", cell(row["parameters"], ",.0f")]
            lines.append([*names, speed, quartiles, *ratios, memory, cell(row["mfu"], ".0%")])
        tables.append(Grid(heads, lines, names=2, title=f"{what.capitalize()} at {length:,} tokens"))
    return tables


def cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
