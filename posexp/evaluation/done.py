"""The rows that an evaluation reuses instead of measuring them again."""

from posexp.evaluation.plan import PROTOCOLS
from posexp.evaluation.rows import Row

FINAL = {"ok", "undefined", "non-finite"}  # statuses that another measurement would not change


def stands(row: Row) -> bool:
    """Return whether a row is final and has the losses by document that comparisons need."""
    if row.status != "ok":
        return row.status in FINAL
    return row.sums is not None or row.protocol not in PROTOCOLS or not PROTOCOLS[row.protocol].summed
