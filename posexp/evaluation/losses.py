"""The stored losses of all targets of a row, as npz, for statistics of single tokens. Only posexp.losses reads them.

Shape suffix: N targets.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from posexp.errors import Misuse, RunFailed
from posexp.evaluation.rows import NAMES, Row, read_rows
from posexp.output.console import say
from posexp.runs.run import Run
from posexp.storage import atomic, untrusted
from posexp.storage.names import LONGEST_NAME, plain_name

CHOICES = ("control", "transform", "window", "stride", "judged_from", "targets_hash")  # of one protocol at one length
MAX_BYTES = 1 << 32  # of a file
MAX_UNPACKED = 64 << 20  # bytes that any file may unpack to; more only if they are at most MAX_RATIO times its size
MAX_RATIO = 64  # losses reach 2 to 4


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


def read_losses(path: Path) -> Losses:
    """Return the losses that `keep` wrote. Raises OSError without a file, ValueError for a damaged one."""
    content = untrusted.read_bytes(path, MAX_BYTES)
    try:
        with ZipFile(io.BytesIO(content)) as packed:
            if sum(part.file_size for part in packed.infolist()) > max(MAX_UNPACKED, MAX_RATIO * len(content)):
                raise ValueError("it unpacks to more than losses can")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = Losses(**arrays)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(str(error) or type(error).__name__) from error
    if any(array.shape != found.nll.shape or array.ndim != 1 for array in vars(found).values()):
        raise ValueError("its arrays must have one dimension and one length")
    return found


def losses_of(run: Run, protocol: str, length: int, columns: dict[str, Any]) -> Losses:
    """Return the losses of the row of a run that has these `columns`; by default the model is as trained.

    Raises Misuse if no row or several match, RunFailed if the losses are missing or damaged.
    """
    if unknown := sorted(columns.keys() - set(NAMES)):
        raise Misuse(f"rows have no column {unknown[0]!r}; the columns are {', '.join(NAMES)}")
    rows, wanted = read_rows(run, say), {"protocol": protocol, "length": length, **columns}
    if not {"control", "transform", "window", "judged_from"} & columns.keys():
        rows = [row for row in rows if not row.control and not row.variant]
    matching = [
        row for row in rows if all((getattr(row, name) or None) == (value or None) for name, value in wanted.items())
    ]
    found = {path_of(run.folder, row): row for row in matching}
    if not found:
        there = ", ".join(dict.fromkeys(f"{row.protocol} at {row.length}" for row in rows)) or "none"
        chosen = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise Misuse(f"{run.name} has no measurement with {chosen}; there are {there}")
    if len(found) > 1:
        values = {name: dict.fromkeys(str(getattr(row, name) or "") for row in found.values()) for name in CHOICES}
        name = next(name for name in CHOICES if len(values[name]) > 1)
        raise Misuse(f"{run.name} has several such measurements: choose {name}= from {', '.join(values[name])}")
    (path,) = found
    try:
        return read_losses(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or error
        raise RunFailed(f"{path} cannot be read ({reason}): remove {run.rows.name} and evaluate again") from error
