"""Token ids on disk, or in a dataset of the hub: .bin files of nanoGPT and llm.c, and .bin and .idx files of Megatron.

nanoGPT's train.bin is nothing but ids, uint16 in the byte order of x86. llm.c puts a header before them. nanoGPT's
meta.pkl is not read, since a pickle can run code: data.vocab_size states the vocabulary. Megatron's .idx has the sizes
of sequences, and the sequences at which documents begin.

Shape suffixes: N tokens, S sequences, D documents.
"""

import struct
from pathlib import Path

import numpy as np

from posexp.config.sections import DataConfig, Split
from posexp.data import files, hub
from posexp.data.documents import Documents, between
from posexp.errors import Misuse

MAGIC = b"MMIDIDX\0\0"
HEADER = struct.Struct("<9sQBQQ")  # magic, version, code of the dtype, sequences, entries of the document index
DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
LLM_C = 20240520, 1  # magic and version of a file of uint16 (write_datafile of llm.c's dev/data/data_common.py)
LLM_C_HEADER = 1024  # bytes: magic, version and number of tokens as int32, then zeros
PART = 1 << 24  # tokens searched at once


def find_token_files(config: DataConfig) -> dict[Split, list[Path]]:
    """Return the .bin files of each split; an option may also name the .idx, or both by their common beginning.

    Raises Misuse for a missing file, and for a file of another suffix.
    """
    found = {}
    for split, (key, value) in files.split_options(config).items():
        patterns = [value] if isinstance(value, str) else value
        if config.dataset and isinstance(patterns, (list, tuple)):
            folder = hub.fetch_files(config, patterns)
            patterns = [str(folder / name) for name in patterns]
        if isinstance(patterns, (list, tuple)):
            patterns = [f"{name}.bin" if Path(f"{name}.bin").expanduser().is_file() else name for name in patterns]
        paths = files.expand(f"data.{key}", patterns, [".bin"])
        found[split] = list(
            dict.fromkeys(path.with_suffix(".bin") if path.suffix == ".idx" else path for path in paths)
        )
        for path in found[split]:
            if path.suffix != ".bin":
                raise Misuse(f"{path} is no file of token ids, which ends with .bin: text is read by data=files")
            if not path.is_file():
                raise Misuse(f"{path} is missing, to which {path.stem}.idx belongs")
    if not found.get(Split.train):
        raise Misuse("data=tokens needs data.paths=<train.bin>")
    return found


def token_content(config: DataConfig) -> list[list[str]]:
    """Return [split, sha256 of the .bin, sha256 of Megatron's .idx or "" for a file of nanoGPT] for every file."""
    return [
        [split.value, *(files.file_digest(one) if one.is_file() else "" for one in (path, path.with_suffix(".idx")))]
        for split, paths in find_token_files(config).items()
        for path in paths
    ]


def read_token_files(config: DataConfig, vocab_size: int) -> dict[Split, Documents]:
    """Return the documents of each split, as ids. Raises Misuse that names an invalid file and its problem."""
    splits = {}
    for split, paths in find_token_files(config).items():
        arrays, bounds = [], []
        for path in paths:
            index, end = path.with_suffix(".idx"), config.document_end
            ids_N, bounds_D1 = read_indexed(path, index) if index.is_file() else read_bare(path, vocab_size, end)
            smallest, largest = int(ids_N.min(initial=0)), int(ids_N.max(initial=0))
            if smallest < 0 or largest >= vocab_size:
                wrong = smallest if smallest < 0 else largest
                remedy = "set data.vocab_size, or the data.tokenizer of these tokens"
                raise Misuse(
                    f"{path} holds the token id {wrong}, and the vocabulary has {vocab_size:,} tokens: {remedy}"
                )
            arrays.append(ids_N)
            bounds.append(bounds_D1)
        splits[split] = between(arrays, bounds, False)
    return splits


def read_bare(path: Path, vocab_size: int, document_end: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, bounds of documents) of a file without index. Each document ends with the token `document_end`."""
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    ids_N = read_ids(path, dtype)
    if dtype.itemsize == 2 and len(ids_N) > LLM_C_HEADER // 2:
        *known, count = ids_N[:6].view("<i4").tolist()
        if tuple(known) == LLM_C and count == len(ids_N) - LLM_C_HEADER // 2:
            ids_N = ids_N[LLM_C_HEADER // 2 :]
    parts = range(0, len(ids_N), PART) if document_end is not None else ()
    ends = [np.flatnonzero(ids_N[first : first + PART] == document_end) + first + 1 for first in parts]
    return ids_N, np.concatenate([[0], *ends, [len(ids_N)]])


def read_ids(path: Path, dtype: np.dtype) -> np.ndarray:
    size = path.stat().st_size
    if not size or size % dtype.itemsize:
        raise Misuse(f"{path} has {size:,} bytes, which are no whole number of {dtype.name} token ids")
    return np.asarray(np.memmap(path, dtype, "r"))


def read_indexed(path: Path, index: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, bounds of documents) of a file of Megatron."""
    size = index.stat().st_size
    with index.open("rb") as file:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or not head.startswith(MAGIC):
            raise Misuse(f"{index} is no index of Megatron: it does not begin with MMIDIDX")
        _, version, code, sequences, entries = HEADER.unpack(head)
        if version != 1 or code not in DTYPES:
            raise Misuse(f"{index} has version {version} and dtype code {code}: 1 and {', '.join(map(str, DTYPES))} "
                         "are read")  # fmt: skip
        if size != HEADER.size + 12 * sequences + 8 * entries:
            raise Misuse(f"{index} has {size:,} bytes, which do not hold {sequences:,} sequences and "
                         f"{entries:,} entries of documents")  # fmt: skip
        sizes_S = np.fromfile(file, "<i4", sequences).astype(np.int64)
        pointers_S = np.fromfile(file, "<i8", sequences)
        first_D1 = np.fromfile(file, "<i8", entries)
    dtype = np.dtype(DTYPES[code])
    ids_N = read_ids(path, dtype)
    ends_S1 = np.concatenate([[0], sizes_S.cumsum()])
    if (sizes_S < 0).any() or ends_S1[-1] != len(ids_N) or (pointers_S != ends_S1[:-1] * dtype.itemsize).any():
        raise Misuse(f"{index} does not fit {path}: its sequences are not the {len(ids_N):,} tokens, one after another")
    if not entries or first_D1[0] != 0 or first_D1[-1] != sequences or (np.diff(first_D1) < 0).any():
        raise Misuse(f"{index} is damaged: its documents are not its {sequences:,} sequences, one after another")
    return ids_N, ends_S1[first_D1]
