"""The copy of rows in Weights & Biases: one curve per variant and set of targets, by length."""

from posexp.config.sections import EvalConfig
from posexp.evaluation.plan import is_moving
from posexp.evaluation.rows import Row
from posexp.runs.wandb import Wandb

NUMBERS = ("ppl", "nll", "bits_per_byte", "accuracy", "exact_match")  # columns that wandb plots


def log_rows(copy: Wandb, rows: list[Row], config: EvalConfig) -> None:
    """Log the metrics of each row at its length, under a name that is equal for the same measurement of any run."""
    for row in sorted(rows, key=lambda row: row.length):
        name = curve_name(row, set_name(row, config))
        known = {f"{name}/{column}": value for column in NUMBERS if (value := getattr(row, column)) is not None}
        if known:
            copy.log({"eval/length": row.length, **known})


def curve_name(row: Row, targets: str) -> str:
    """Return a name such as eval/same_targets 1a2b3c4d/sliding 64/yarn or eval/…/control window.

    `targets` is the hash of the set of targets; all rows of a curve share it.
    """
    seen = row.control_of or row.window
    window = seen if seen != row.trained_window else ""
    control = f"control {row.control}" if row.control else ""
    parts = ("eval", f"{row.protocol} {targets}", row.corpus, window, row.transform, control)
    return "/".join(part for part in parts if part)


def set_name(row: Row, config: EvalConfig) -> str:
    """Return the name of a row's set of targets: the hash or, for moving protocols, how the targets were chosen."""
    if not is_moving(row.protocol):
        return row.targets_hash[:8]
    stride = f", stride {row.stride}" if row.stride else ""
    return f"{'all' if config.targets is None else config.targets} {row.split} targets{stride}"
