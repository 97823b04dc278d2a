"""Rows of known columns, and the losses of stored ones."""

from pathlib import Path
from typing import Any

import numpy as np

from posexp.evaluation import losses
from posexp.evaluation.losses import Losses
from posexp.evaluation.rows import Row

NEEDED = {"run": "rope-s0-aa", "seed": 0, "train_length": 128, "length": 128, "targets_hash": "ab12cd34ef56"}


def row_of(**columns: Any) -> Row:
    """A row with the columns that every row has, where `columns` lack them."""
    return Row.of({**NEEDED, "protocol": "same_targets", "window": "full", **columns})


def stored_losses(folder: Path, values: dict[str, Any]) -> Losses | None:
    """The stored losses of a line of rows.jsonl; None without a file."""
    path = path_of_losses(folder, values)
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return Losses(**arrays)


def path_of_losses(folder: Path, values: dict[str, Any]) -> Path:
    return losses.path_of(folder, Row.of(values))
