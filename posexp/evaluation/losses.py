"""The stored losses of all targets of a row, as npz, for statistics of single tokens. posexp itself reads none of them.

Shape suffix: N targets.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posexp.evaluation.rows import Row
from posexp.storage import atomic
from posexp.storage.names import LONGEST_NAME, plain_name


@dataclass(frozen=True)
class Losses:
    """The losses of the targets of one row, in the order of its spans.

    nll: float32 [N], nats; target: int64 [N], offset in the split; context: int32 [N], in tokens; document: int32 [N],
    index in the split; hit: bool [N], whether the target was the likeliest token.
    """

    nll: np.ndarray
    target: np.ndarray
    context: np.ndarray
    document: np.ndarray
    hit: np.ndarray


def path_of(folder: Path, row: Row) -> Path:
    """Return the file of the losses of `row` of the run in `folder`. Different measurements have different names."""
    parts = [row.protocol, str(row.length)]
    parts += [f"by{row.stride}"] if row.stride else []
    parts += [f"from{row.judged_from}"] if row.judged_from else []
    parts.append(row.targets_hash)
    window = row.window if row.window != row.trained_window else ""
    parts += [part for part in (window, row.transform, row.control) if part]
    name = "-".join(map(plain_name, parts))
    if len(name.encode()) > LONGEST_NAME:
        name = f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / "losses" / f"{name}.npz"


def keep(folder: Path, row: Row, losses: Losses) -> None:
    """Write the losses of `row`. Raises OSError if the file cannot be written."""
    path = path_of(folder, row)
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **vars(losses))
    atomic.write_file(path, content.getvalue())
