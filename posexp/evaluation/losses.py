"""The stored losses of all targets of a row, with which runs are compared by token and by document.

Shape suffixes: N targets, D documents.
"""

import hashlib
import io
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np

from posexp.evaluation.rows import Row
from posexp.storage import atomic, untrusted
from posexp.storage.names import LONGEST_NAME, plain_name

MOST_BYTES = 1 << 32  # of a file
SMALL = 64 << 20  # bytes that any file may unpack to
MOST_RATIO = 64  # of unpacked to packed size; losses reach 2 to 4
MOST_KEPT = 1 << 28  # bytes of the losses that a reader keeps in memory
MOST_SHARED = 1 << 22  # bytes of an array that rows share
MOST_ARRAYS = 64  # shared
SHARED = ("target.npy", "context.npy", "document.npy")
DTYPES = {"nll": np.float32, "target": np.int64, "context": np.int32, "document": np.int32, "hit": np.bool_}

shared: dict[tuple[int, int, bytes], np.ndarray] = {}  # by their packed bytes


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

    def by_document(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (documents int64, sums of losses float64, counts of targets float64), [D] each."""
        document_D, index_N = np.unique(self.document, return_inverse=True)
        sum_D = np.bincount(index_N, weights=self.nll.astype(np.float64))
        return document_D.astype(np.int64), sum_D, np.bincount(index_N).astype(np.float64)


def path_of(folder: Path, row: Row) -> Path:
    """Return the file of the losses of `row` of the run in `folder`. Different measurements have different names."""
    parts = [row.protocol, str(row.length)]
    parts += [f"by{row.stride}"] if row.stride else []
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
            members = {member.filename: member for member in packed.infolist()}
            if sum(member.file_size for member in members.values()) > max(SMALL, MOST_RATIO * len(content)):
                raise ValueError("the file unpacks to more than losses can")
            return checked(Losses(**{name: unpacked(packed, members[f"{name}.npy"], content) for name in DTYPES}))
    except Exception:  # a damaged file can raise anything
        return None


def unpacked(packed: ZipFile, member: ZipInfo, content: bytes) -> np.ndarray:
    """Return the array of a member of the zip file with these bytes; rows of the same targets share their arrays."""
    if member.filename not in SHARED or member.file_size > MOST_SHARED:
        return array_of(packed.read(member))
    name, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
    begin = member.header_offset + 30 + name + extra
    key = (member.CRC, member.compress_type, content[begin : begin + member.compress_size])
    if key not in shared:
        if len(shared) >= MOST_ARRAYS:
            shared.clear()
        shared[key] = array_of(packed.read(member))
    return shared[key]


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


class LossReader:
    """The losses of the rows of several runs. The latest ones stay in memory, because rows are compared in turn."""

    def __init__(self, folder_of: dict[str, Path]):
        self.folder_of = folder_of
        self.latest: dict[Path, Losses | None] = {}
        self.bytes = 0

    def __call__(self, row: Row) -> Losses | None:
        if row.run not in self.folder_of:
            return None
        path = path_of(self.folder_of[row.run], row)
        if path in self.latest:
            self.latest[path] = self.latest.pop(path)  # the latest is last
        else:
            self.latest[path] = found = read_losses(self.folder_of[row.run], row)
            self.bytes += size_of(found)
            while self.bytes > MOST_KEPT and len(self.latest) > 1:
                self.bytes -= size_of(self.latest.pop(next(iter(self.latest))))
        return self.latest[path]


def size_of(losses: Losses | None) -> int:
    return 0 if losses is None else sum(values.nbytes for values in vars(losses).values())
