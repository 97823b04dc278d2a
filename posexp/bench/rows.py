"""The rows of a bench: medians over rounds, ratios of two contenders in the same rounds, and tables of them."""

import statistics
from typing import Any

import numpy as np

from posexp.bench.interleave import OK, Measured
from posexp.output.grid import Grid
from posexp.report.bench_records import components_of

FORMULAS = {
    "flops_per_token": "2 w + 4 n_layer k d_model, and three times that in training; w: weights of linear and of "
    "recurrent layers and of the output layer; k: mean number of keys of a query, length / 2 without window and mixer",
    "mfu": "flops_per_token x tokens per second / matmul_flops, the median over rounds; matmul_flops: operations per "
    "second in a product of 2048 x 2048 matrices, the median over rounds",
    "mfu_vendor": "flops_per_token x tokens_per_second / vendor_flops, the vendor's peak of a bfloat16 product",
    "ratio_error": "1.253 x (interquartile range of ratio_to_none by round / 1.349) / sqrt(rounds) / ratio_to_none",
}
LEGEND = (
    "× none: speed relative to the scheme none in the same rounds. × peer: relative to the fastest peer. MiB: peak "
    "memory of a pass above that of the process before the model was built. MFU: model FLOPs per second (6 or 2 for "
    "each weight and token, and causal attention) relative to a product of 2048 x 2048 matrices in the same process "
    "and rounds; MFU of vendor: relative to the vendor's bfloat16 peak."
)
Row = dict[str, Any]  # None if there is no value


def rows_of(found: list[Measured], base: str, vendor_flops: float | None = None) -> list[Row]:
    """Return one row for each of `found`.

    Speeds are in tokens per second, memory in bytes, `matmul_flops` in operations per second. Ratios are of speeds, to
    the contender `base` and to the peer with the highest median; above 1 is faster. `vendor_flops` is the vendor's
    peak.
    """
    rows = []
    for one in found:
        beside = [other for other in found if (other.what, other.length) == (one.what, one.length) and other.seconds]
        bases = [other for other in beside if other.contender.name == base and not other.contender.peer]
        peers = sorted((other for other in beside if other.contender.peer), key=lambda other: np.median(speeds(other)))
        row = row_of(one, bases[0] if bases else None, peers[-1] if peers else None)
        if vendor_flops and one.seconds:
            row["mfu_vendor"] = row["flops_per_token"] * row["tokens_per_second"] / vendor_flops
        rows.append(row)
    return rows


def row_of(one: Measured, base: Measured | None, peer: Measured | None) -> Row:
    row: Row = {
        "contender": one.contender.name,
        "kind": "peer" if one.contender.peer else "posexp",
        "components": None if one.contender.peer else components_of(one.contender),
        "what": one.what,
        "length": one.length,
        "status": one.status,
        **dict.fromkeys(("tokens_per_second", "lower_quartile", "upper_quartile", "speeds")),
        **dict.fromkeys(("ratio_to_none", "ratio_error", "ratio_to_fastest_peer")),
        "peak_memory": one.peak_memory,
        "memory_to_none": one.peak_memory / base.peak_memory if base and base.peak_memory and one.peak_memory else None,
        "parameters": one.facts.get("parameters"),
        **dict.fromkeys(("flops_per_token", "mfu", "mfu_vendor", "matmul_flops")),
        "path": one.facts.get("path"),
        "matmul": one.facts.get("details", {}).get("matmul"),
    }
    if not one.seconds:
        return row
    quartiles = np.quantile(speeds(one), [0.25, 0.5, 0.75]).tolist()
    row |= zip(("lower_quartile", "tokens_per_second", "upper_quartile"), quartiles, strict=True)
    rates = [one.flops_per_token * speed for speed in speeds(one)]
    return row | {
        "speeds": speeds(one),
        **dict(zip(("ratio_to_none", "ratio_error"), ratio(one, base), strict=True)),
        "ratio_to_fastest_peer": ratio(one, peer)[0],
        "flops_per_token": one.flops_per_token,
        "mfu": statistics.median(rate / peak for rate, peak in zip(rates, one.matmul_peaks, strict=True)),
        "matmul_flops": statistics.median(one.matmul_peaks),
    }


def speeds(one: Measured) -> list[float]:
    """Return tokens per second by round."""
    return [one.tokens / seconds for seconds in one.seconds.values()]


def ratio(one: Measured, other: Measured | None) -> tuple[float | None, float | None]:
    """Return the median ratio of speeds over shared rounds, and its relative error (None without any round)."""
    rounds = [n for n in one.seconds if other is not None and n in other.seconds]
    if other is None or not rounds:
        return None, None
    ratios = [one.tokens / other.tokens * other.seconds[n] / one.seconds[n] for n in rounds]
    lower, middle, upper = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return middle, 1.253 * (upper - lower) / 1.349 / len(rounds) ** 0.5 / middle


def bench_tables(rows: list[Row]) -> list[Grid]:
    """Return a table for training and for each evaluation length, with contenders in order of training speed."""
    training = sorted((row for row in rows if row["what"] == "training"), key=lambda row: -(row["ratio_to_none"] or 0))
    order = [(row["kind"], row["contender"]) for row in training]
    heads = ["contender", "path", "parameters", "tokens/s", "quartiles", "× none", "MiB", "MFU"]
    if peers := any(row["kind"] == "peer" for row in rows):
        heads.insert(6, "× peer")
    vendor = any(row["mfu_vendor"] for row in rows)
    heads += ["MFU of vendor"] * vendor
    tables = []
    for what, length in dict.fromkeys((row["what"], row["length"]) for row in rows):
        here = [row for row in rows if (row["what"], row["length"]) == (what, length)]
        lines = []
        for row in sorted(here, key=lambda row: order.index((row["kind"], row["contender"]))):
            speed = cell(row["tokens_per_second"], ",.0f") if row["status"] == OK else row["status"]
            lower, upper = (cell(row[name], ",.0f") for name in ("lower_quartile", "upper_quartile"))
            quartiles = f"{lower} - {upper}" if row["tokens_per_second"] else "–"
            beside = [cell(row["ratio_to_none"], ".2f"), cell(row["ratio_to_fastest_peer"], ".2f")][: 1 + peers]
            memory = cell(row["peak_memory"] and row["peak_memory"] / 2**20, ",.0f")
            names = [row["contender"], row["path"] or "–", cell(row["parameters"], ",.0f")]
            shares = [cell(row[name], ".0%") for name in ("mfu", "mfu_vendor")][: 1 + vendor]
            lines.append([*names, speed, quartiles, *beside, memory, *shares])
        tables.append(Grid(heads, lines, names=2, title=f"{what.capitalize()} at {length:,} tokens"))
    return tables


def cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
