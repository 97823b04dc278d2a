"""Kept losses: of every target of a row, so that runs are compared token by token and document by document.

Shape suffixes: N targets, D documents.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posexp import whole


@dataclass(frozen=True)
class Losses:
    """Of the targets of one row, in the order of its windows.

    nll: float32 [N], nats; target: int64 [N], offset in the split; context: int32 [N], tokens of it; document:
    int32 [N], index in the split; hit: bool [N], whether the target was the likeliest token.
    """

    nll: np.ndarray
    target: np.ndarray
    context: np.ndarray
    document: np.ndarray
    hit: np.ndarray

    def by_document(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(documents int64, sum of their losses float64, number of their targets float64), [D] each."""
        document_D, index_N = np.unique(self.document, return_inverse=True)
        sum_D = np.bincount(index_N, weights=self.nll.astype(np.float64))
        return document_D.astype(np.int64), sum_D, np.bincount(index_N).astype(np.float64)


def path_of(folder: Path, row: dict[str, Any]) -> Path:
    """Where the losses of `row` of the run in `folder` are kept; the name holds all that makes rows differ."""
    parts = [row["protocol"], row["length"]]
    parts += [f"by{row['stride']}"] if row.get("stride") else []
    parts.append(row["targets_hash"])
    window = row["window"] if row["window"] != row.get("trained_window") else ""
    parts += [plain_name(part) for part in (window, row.get("transform"), row.get("control")) if part]
    return folder / "losses" / ("-".join(map(str, parts)) + ".npz")


def keep(folder: Path, row: dict[str, Any], losses: Losses) -> None:
    """Writes the losses of `row`. Raises OSError where that is not possible."""
    path = path_of(folder, row)
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **vars(losses))
    whole.write(path, content.getvalue())


def read(folder: Path, row: dict[str, Any]) -> Losses | None:
    """The losses of `row`; None if they are not kept (any more) or cannot be read."""
    try:
        content = io.BytesIO(path_of(folder, row).read_bytes())
        with np.load(content, allow_pickle=False) as kept:
            return Losses(**{name: kept[name] for name in Losses.__dataclass_fields__})
    except Exception:  # whatever a damaged archive makes its readers raise
        return None


def plain_name(text: str) -> str:
    """`text` as a part of a file's name."""
    return re.sub(r"[^\w.+=]+", "_", text).strip("_")
