"""The rows of a bench: medians over rounds, and ratios of two contenders in the same rounds."""

import statistics
from typing import Any

from posexp.bench.interleave import OK, Measured

COLUMNS = (
    *("contender", "kind", "what", "length", "status", "tokens_per_second", "lower_quartile", "upper_quartile"),
    *("ratio_to_none", "ratio_to_fastest_peer", "peak_memory", "parameters", "flops_per_token", "mfu", "matmul_flops"),
    *("path", "matmul"),
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
        peers = sorted((other for other in beside if other.contender.peer), key=median_speed)
        rows.append(row_of(one, bases[0] if bases else None, peers[-1] if peers else None))
    return rows


def row_of(one: Measured, base: Measured | None, peer: Measured | None) -> Row:
    row: Row = dict.fromkeys(COLUMNS)
    row |= {
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
    if one.status != OK and not one.seconds:
        return row
    lower, middle, upper = quartiles([one.tokens / seconds for seconds in one.seconds.values()])
    rates = [one.flops_per_token * one.tokens / seconds for seconds in one.seconds.values()]
    return row | {
        "tokens_per_second": middle,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "ratio_to_none": ratio(one, base),
        "ratio_to_fastest_peer": ratio(one, peer),
        "flops_per_token": one.flops_per_token,
        "mfu": statistics.median(rate / peak for rate, peak in zip(rates, one.matmul_peaks, strict=True)),
        "matmul_flops": statistics.median(one.matmul_peaks),
    }


def ratio(one: Measured, other: Measured | None) -> float | None:
    """Return the median ratio of speeds over shared rounds, or None without any."""
    if other is None:
        return None
    pairs = [(other.seconds[index], seconds) for index, seconds in one.seconds.items() if index in other.seconds]
    share = one.tokens / other.tokens
    return share * statistics.median(theirs / ours for theirs, ours in pairs) if pairs else None


def median_speed(one: Measured) -> float:
    return statistics.median(one.tokens / seconds for seconds in one.seconds.values())


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, middle, upper = statistics.quantiles(values, method="inclusive")
    return lower, middle, upper
