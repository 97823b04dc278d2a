"""Kept losses: of every target of a row, so that runs are compared token by token and document by document.

Shape suffixes: N targets, D documents.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from posexp.storage import atomic, untrusted
from posexp.storage.names import LONGEST_NAME, plain_name

MOST_BYTES = 1 << 32  # of a file
SMALL = 64 << 20  # bytes that may be unpacked from anything
MOST_RATIO = 64  # of unpacked to packed; losses are random digits, and give 2 to 4
DTYPES = {"nll": np.float32, "target": np.int64, "context": np.int32, "document": np.int32, "hit": np.bool_}


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
    parts = [row["protocol"], str(row["length"])]
    parts += [f"by{row['stride']}"] if row.get("stride") else []
    parts.append(row["targets_hash"])
    window = row["window"] if row["window"] != row.get("trained_window") else ""
    parts += [part for part in (window, row.get("transform"), row.get("control")) if part]
    name = "-".join(map(plain_name, parts))
    if len(name.encode()) > LONGEST_NAME:
        name = f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / "losses" / f"{name}.npz"


def keep(folder: Path, row: dict[str, Any], losses: Losses) -> None:
    """Writes the losses of `row`. Raises OSError where that is not possible."""
    path = path_of(folder, row)
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **vars(losses))
    atomic.write_file(path, content.getvalue())


def read_losses(folder: Path, row: dict[str, Any]) -> Losses | None:
    """The losses of `row`; None if they are not kept (any more) or cannot be read."""
    try:
        content = untrusted.read_bytes(path_of(folder, row), MOST_BYTES)
        with ZipFile(io.BytesIO(content)) as packed:
            if sum(member.file_size for member in packed.infolist()) > max(SMALL, MOST_RATIO * len(content)):
                raise ValueError("it unpacks to far more than losses do")
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            return checked(Losses(**{name: kept[name] for name in DTYPES}))
    except Exception:  # whatever a damaged file makes an unpacker raise
        return None


def checked(losses: Losses) -> Losses:
    """Raises ValueError for arrays that `keep` would not write."""
    values = vars(losses)
    if any(values[name].dtype != dtype or values[name].shape != losses.nll.shape for name, dtype in DTYPES.items()):
        raise ValueError("they are no arrays of losses")
    if losses.nll.ndim != 1 or not len(losses.nll) or losses.document.min() < 0:
        raise ValueError("they are no list of losses")
    losses.nll[np.isnan(losses.nll)] = np.nan  # one of other bits may be a kind that warns
    return losses
