"""Which rows need not be measured again."""

from typing import Any

from posexp.evaluation import losses
from posexp.evaluation.plan import PROTOCOLS
from posexp.runs.run import Run

FINAL = {"ok", "undefined", "non-finite"}  # statuses that measuring again would not change
# What makes two rows the same measurement.
KEY = (
    *("protocol", "length", "stride", "window", "transform", "transform_settings", "control"),
    *("targets_hash", "weights", "precision"),
)


def stands(run: Run, row: dict[str, Any]) -> bool:
    """Whether measuring a row again would not change it, and its losses are kept and intact."""
    if row.get("status") not in FINAL:
        return False
    without = row["status"] == "undefined" or row["protocol"] not in PROTOCOLS or PROTOCOLS[row["protocol"]].drawn_only
    return without or losses.read_losses(run.folder, row) is not None


def key_of(row: dict[str, Any], columns: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row.get(column) or None for column in columns)  # rows from before transforms lack their columns
