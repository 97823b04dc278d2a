"""A row: one run under one protocol at one length, as rows.jsonl and rows.csv hold it."""

import math
from typing import Any

Row = dict[str, Any]

COLUMNS: tuple[str, ...] = (
    "run",
    "scheme",
    "seed",
    "train_length",
    "length",
    "protocol",
    "stride",
    "window",
    "transform",
    "control",
    "targets",
    "targets_hash",
    "nll",
    "ppl",
    "bits_per_byte",
    "accuracy",
    "exact_match",
    "ci_low",
    "ci_high",
    "crossing_share",
    "tokens_per_second",
    "peak_memory",
    "kernel_path",
    "status",
)


def status_of(row: Row) -> str:
    """The row's status; a row that claims to be ok but holds no finite perplexity is "non-finite"."""
    status = row.get("status") or "ok"
    if status != "ok":
        return status
    nll = row.get("nll")
    return "ok" if nll is not None and math.isfinite(nll) and nll < 700 else "non-finite"  # exp(710) overflows


def variant_of(row: Row) -> str:
    """How the run was evaluated other than as it was trained: "", or " · window bca 64 · yarn"; of a control, how the
    row was that it belongs to."""
    window, trained = row.get("control_of") or row.get("window") or "full", row.get("trained_window") or "full"
    parts = [f"window {window}" if window != trained else "", row.get("transform") or ""]
    return "".join(f" · {part}" for part in parts if part)
