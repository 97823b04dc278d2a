"""A row: one run under one protocol at one length, as rows.jsonl and rows.csv hold it."""

import math
from collections.abc import Callable
from typing import Any

from posexp.runs.run import Run
from posexp.storage import jsonl
from posexp.storage.untrusted import is_count, is_loss, is_perplexity, is_share, is_text

Row = dict[str, Any]

# What the columns that posexp computes with may be; others are only handed on.
NEEDED = {
    **dict.fromkeys(("protocol", "targets_hash", "window"), is_text),
    **dict.fromkeys(("seed", "train_length", "length"), is_count),
}
KNOWN = {
    **dict.fromkeys(
        ("scheme", "status", "transform", "control", "control_of", "trained_window", "corpus", "weights"), is_text
    ),
    **dict.fromkeys(("transform_settings", "precision", "kernel_path", "bos", "byte_count"), is_text),
    **dict.fromkeys(("stride", "targets", "documents"), is_count),
    **dict.fromkeys(("nll", "bits_per_byte"), is_loss),
    **dict.fromkeys(("ppl", "ci_low", "ci_high"), is_perplexity),
    **dict.fromkeys(("accuracy", "exact_match", "crossing_share"), is_share),
}

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
    "documents",
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


def read_rows(run: Run, say: Callable[[str], None]) -> list[Row]:
    """The rows of a run, which are its own whatever they say; lines that are none are told through `say`.

    Raises RunFailed as jsonl.read does.
    """
    return [{**row, "run": run.name} for row in jsonl.read_lines(run.rows, say, NEEDED, KNOWN)]


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


def row_line(row: Row) -> str:
    """What a person at the terminal sees of a row."""
    value = f"ppl {row['ppl']:.2f}" if row["ppl"] is not None else row["status"]
    if row["exact_match"] is not None:
        value = f"{100 * row['exact_match']:.1f} % exactly right"
    elif row["ci_low"] is not None:
        value += f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    window = f"window {row['window']}" if row["window"] != row["trained_window"] and not row["control"] else ""
    control = {"": "", "window": "window cut", "shuffled": "far text shuffled"}[row["control"]]
    how = "".join(f", {part}" for part in (window, row["transform"], control) if part)
    return f"{row['run']}: {row['protocol']} {row['length']}{how}: {value}"
