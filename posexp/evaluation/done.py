"""The rows that an evaluation reuses instead of measuring them again."""

from posexp.evaluation import losses
from posexp.evaluation.plan import PROTOCOLS
from posexp.evaluation.rows import Row
from posexp.runs.run import Run

FINAL = {"ok", "undefined", "non-finite"}  # statuses that another measurement would not change


def stands(run: Run, row: Row) -> bool:
    """Return whether a row is final and its stored losses, if it needs any, can be read."""
    if row.status not in FINAL:
        return False
    without = row.status == "undefined" or row.protocol not in PROTOCOLS or PROTOCOLS[row.protocol].drawn_only
    return without or losses.read_losses(run.folder, row) is not None
