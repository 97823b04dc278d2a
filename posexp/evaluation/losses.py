"""The stored losses of all targets of a row, for statistics of single tokens. Shape suffix: N targets."""

import hashlib
import io
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from posexp.evaluation.rows import Row
from posexp.storage import atomic, untrusted
from posexp.storage.names import LONGEST_NAME, plain_name

MOST_BYTES = 1 << 32  # of a file
SMALL = 64 << 20  # bytes that any file may unpack to
MOST_RATIO = 64  # of unpacked to packed size; losses reach 2 to 4
DTYPES = {"nll": np.float32, "target": np.int64, "context": np.int32, "document": np.int32, "hit": np.bool_}


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


def read_losses(folder: Path, row: Row) -> Losses | None:
    """Return the losses of `row`; None if the file is missing or damaged."""
    try:
        content = untrusted.read_bytes(path_of(folder, row), MOST_BYTES)
        with ZipFile(io.BytesIO(content)) as packed:
            if sum(member.file_size for member in packed.infolist()) > max(SMALL, MOST_RATIO * len(content)):
                raise ValueError("the file unpacks to more than losses can")
            return checked(Losses(**{name: array_of(packed.read(f"{name}.npy")) for name in DTYPES}))
    except Exception:  # a damaged file can raise anything
        return None


def array_of(content: bytes) -> np.ndarray:
    """Return the array of an .npy file of version 1.0, read-only. Raises ValueError for another version."""
    begin = 10 + int.from_bytes(content[8:10], "little")
    shape, dtype = header_of(content[:begin])
    return np.frombuffer(content, dtype, offset=begin).reshape(shape)


@lru_cache
def header_of(content: bytes) -> tuple[tuple[int, ...], np.dtype]:
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("numpy writes losses as version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype


def checked(losses: Losses) -> Losses:
    """Return the losses with plain NaNs. Raises ValueError if `keep` could not have written the arrays."""
    values = vars(losses)
    if any(values[name].dtype != dtype or values[name].shape != losses.nll.shape for name, dtype in DTYPES.items()):
        raise ValueError("the arrays differ in dtype or shape from losses")
    if losses.nll.ndim != 1 or not len(losses.nll) or losses.document.min() < 0:
        raise ValueError("the arrays must be non-empty and one-dimensional")
    wrong_N = np.isnan(losses.nll)
    if not wrong_N.any():
        return losses
    return replace(losses, nll=np.where(wrong_N, np.float32(np.nan), losses.nll))  # signalling NaNs raise warnings
