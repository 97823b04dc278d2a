"""The rows that an evaluation reuses instead of measuring them again."""

from typing import Any

from posexp.evaluation import losses
from posexp.evaluation.plan import PROTOCOLS
from posexp.runs.run import Run

FINAL = {"ok", "undefined", "non-finite"}  # statuses that another measurement would not change
# The columns that two rows of the same measurement share.
KEY = (
    *("protocol", "length", "stride", "window", "transform", "transform_settings", "control"),
    *("targets_hash", "weights", "precision"),
)


def stands(run: Run, row: dict[str, Any]) -> bool:
    """Return whether a row is final and its stored losses, if it needs any, can be read."""
    if row.get("status") not in FINAL:
        return False
    without = row["status"] == "undefined" or row["protocol"] not in PROTOCOLS or PROTOCOLS[row["protocol"]].drawn_only
    return without or losses.read_losses(run.folder, row) is not None


def key_of(row: dict[str, Any], columns: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row.get(column) or None for column in columns)  # old rows lack the columns of transforms
