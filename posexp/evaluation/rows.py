"""The rows of rows.jsonl and rows.csv: one run under one protocol at one length each."""

import math
from collections.abc import Callable
from typing import Any

from posexp.runs.run import Run
from posexp.storage import jsonl
from posexp.storage.untrusted import is_count, is_loss, is_perplexity, is_share, is_text

Row = dict[str, Any]

# The checks of the columns that posexp computes with; other columns are copied only.
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
    """Return the rows of a run, with `run` set to the folder's name; damaged lines are skipped and reported by `say`.

    Raises RunFailed if rows.jsonl cannot be read.
    """
    return [{**row, "run": run.name} for row in jsonl.read_lines(run.rows, say, NEEDED, KNOWN)]


def status_of(row: Row) -> str:
    """Return the row's status; "non-finite" for an ok row without a finite perplexity."""
    status = row.get("status") or "ok"
    if status != "ok":
        return status
    nll = row.get("nll")
    return "ok" if nll is not None and math.isfinite(nll) and nll < 700 else "non-finite"  # exp(710) overflows


def variant_of(row: Row) -> str:
    """Return how the evaluation differs from training: "", or " · window bca 64 · yarn".

    A control has the variant of the row that it belongs to.
    """
    window, trained = row.get("control_of") or row.get("window") or "full", row.get("trained_window") or "full"
    parts = [f"window {window}" if window != trained else "", row.get("transform") or ""]
    return "".join(f" · {part}" for part in parts if part)


def row_line(row: Row) -> str:
    """Return the row as one line for the terminal."""
    value = f"ppl {row['ppl']:.2f}" if row["ppl"] is not None else row["status"]
    if row["exact_match"] is not None:
        value = f"{100 * row['exact_match']:.1f} % exactly right"
    elif row["ci_low"] is not None:
        value += f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    window = f"window {row['window']}" if row["window"] != row["trained_window"] and not row["control"] else ""
    control = {"": "", "window": "window cut", "shuffled": "far text shuffled"}[row["control"]]
    how = "".join(f", {part}" for part in (window, row["transform"], control) if part)
    return f"{row['run']}: {row['protocol']} {row['length']}{how}: {value}"
