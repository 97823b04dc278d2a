"""The token store: a corpus as token ids on disk, written once, opened by its sizes, read through a memory map.

    <cache>/tokens/<key>/
        train.bin, valid.bin, test.bin         ids, uint16 or uint32
        train.documents.npy, …                 int64 [documents + 1]: the start of each document, and the end
        tokenizer.json
        store.json                             sizes and hashes of these files, the source of the text, notes

The key is a hash of the raw input and of the options that determine the tokens, but not of file names and times. A
machine without the raw input loads a store by its key (data.store=…); store.json records the options.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posexp.config.digest import identity
from posexp.config.sections import DataConfig, Split
from posexp.data import corpus, tasks, tokenizer, tracks
from posexp.errors import Misuse
from posexp.storage import atomic, untrusted

FORMAT = 1
UNSHAPING = {"paths", "valid", "test", "vocab_size", "cross_documents"}  # the vocabulary is the tokenizer's
COUNTS = ("documents", "tokens", "bytes")  # of each split
MAX_SIZE = 1 << 20  # of a task's training examples

Say = Callable[[str], None]


class DamageError(Exception):
    """A store whose files do not match its store.json."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of one split.

    ids: [N] uint16 or uint32. starts: int64 [documents + 1]. bytes: of the split's text in UTF-8; 0 for tokens without
    text. store: the source. bos: the token that replaces the first token of every span, or None. prefix: the token
    that may be put before a document, or None if the tokenizer has no such token.
    """

    ids: np.memmap | np.ndarray
    starts: np.ndarray
    bytes: int
    sha256: str
    store: "Store | None" = None
    bos: int | None = None
    prefix: int | None = None

    def token_bytes(self) -> tuple[np.ndarray, str]:
        """Return (UTF-8 bytes of text for each token of the vocabulary, float64 [V]; how they were computed).

        exact: the bytes of all tokens sum to the bytes of the split. scaled: the tokenizer drops or rewrites
        characters, so the bytes are scaled by one factor to give that sum. mean: the tokenizer has no usable decoder,
        so every token counts the mean. `store` must be set.
        """
        assert self.store is not None
        counts_V = self.store.token_bytes()
        parts = np.array_split(self.ids, len(self.ids) // (1 << 22) + 1)  # bounds memory: a count takes eight bytes
        total = 0 if counts_V is None else sum(int(counts_V[part].sum()) for part in parts)
        if counts_V is None or not total:
            return np.full(self.store.vocab_size, self.bytes / len(self.ids)), "mean"
        return counts_V * (self.bytes / total), "exact" if total == self.bytes else "scaled"


class Store:
    """A store whose files exist and have their sizes, else DamageError is raised. Only `damage` reads all of them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.key = folder.name
        self.meta = read_meta(folder)
        self.vocab_size: int = self.meta["vocab_size"]
        self.tokenizer_path = folder / "tokenizer.json"
        self.notes: list[str] = self.meta["notes"]

    def split(self, split: Split) -> Tokens:
        """Return the tokens of `split`. Raises Misuse if the corpus has no such split."""
        known = self.meta["splits"].get(split.value)
        if known is None:
            raise Misuse(f"the corpus has no {split.value} split; there are {', '.join(self.meta['splits'])}")
        ids = np.memmap(self.folder / f"{split.value}.bin", dtype=self.meta["dtype"], mode="r")
        starts = np.load(self.folder / f"{split.value}.documents.npy", allow_pickle=False)
        return Tokens(ids, starts, known["bytes"], self.meta["files"][f"{split.value}.bin"]["sha256"], self)

    def damage(self) -> Iterator[str]:
        """Yield a line for each file whose content differs from what was written, and each split with invalid ids."""
        for name, known in self.meta["files"].items():
            if atomic.sha256(self.folder / name) != known["sha256"]:
                yield f"{name} has been changed: its sha256 differs"
        for name in self.meta["splits"]:
            if self.split(Split(name)).ids.max() >= self.vocab_size:
                yield f"split {name!r} is invalid: it has token ids beyond the vocabulary"

    def token_bytes(self) -> np.ndarray | None:
        """Return the UTF-8 bytes that each token adds to decoded text, int64 [V]; None without a decoder."""
        counts_V = tokenizer.token_bytes(tokenizer.load_tokenizer(self.tokenizer_path))
        if counts_V is not None:
            counts_V[self.meta.get("marks", [])] = 0  # BOS and EOS around documents are not text
        return counts_V


def read_meta(folder: Path) -> dict[str, Any]:
    """Load store.json, and check the size of every file. Raises DamageError that names the file."""
    try:
        meta = untrusted.json_of(untrusted.read_bytes(folder / "store.json"))
        own = meta.pop("sha256")
    except FileNotFoundError as error:
        raise DamageError("store.json is missing") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamageError("store.json cannot be read") from error
    if own != meta_digest(meta):
        raise DamageError("store.json has been changed")
    if not is_meta(meta):
        raise DamageError("store.json does not describe a token store")
    for name, known in meta["files"].items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise DamageError(f"{name} is missing")
        if (size := path.stat().st_size) != known["size"]:
            raise DamageError(f"{name} has {size} bytes instead of {known['size']}")
    for name in meta["splits"]:
        check_split(folder, name, meta)
    return meta


def is_meta(meta: dict[str, Any]) -> bool:
    """Return whether `meta` has the content that `write_store` writes, so that its file names are safe."""
    try:
        splits, files = meta["splits"], meta["files"]
        names = {f"{split}{ending}" for split in splits for ending in (".bin", ".documents.npy")} | {"tokenizer.json"}
        return (
            meta["dtype"] in ("uint16", "uint32")
            and isinstance(meta["corpus"], str)
            and all(isinstance(note, str) for note in meta["notes"])
            and untrusted.is_count(meta["vocab_size"])
            and {Split.train.value} <= splits.keys() <= {split.value for split in Split}
            and all(untrusted.is_count(known[name]) for known in splits.values() for name in COUNTS)
            and files.keys() == names
            and all(untrusted.is_count(known["size"]) and isinstance(known["sha256"], str) for known in files.values())
            and isinstance(meta["choices"], dict)
            and (meta.get("task") is None or is_task(meta["task"]))
            and (meta.get("track") is None or is_track(meta["track"], meta["vocab_size"]))
            and all(untrusted.is_count(mark) and mark < meta["vocab_size"] for mark in meta.get("marks", []))
        )
    except (KeyError, TypeError, AttributeError):
        return False


def is_task(about: dict[str, Any]) -> bool:
    return about["name"] in tasks.TASKS and untrusted.is_count(about["size"]) and 0 < about["size"] <= MAX_SIZE


def is_track(about: dict[str, Any], vocab_size: int) -> bool:
    return about["name"] in tracks.TRACKS and about["symbols"] == vocab_size


def check_split(folder: Path, name: str, meta: dict[str, Any]) -> None:
    """Raise DamageError unless the split's documents are contiguous."""
    try:
        count, rest = divmod(meta["files"][f"{name}.bin"]["size"], np.dtype(meta["dtype"]).itemsize)
        starts = np.load(folder / f"{name}.documents.npy", mmap_mode="r", allow_pickle=False)
        side_by_side = starts.dtype == np.int64 and starts.ndim == 1 and bool((np.diff(starts) > 0).all())
        if rest or not side_by_side or len(starts) < 2 or starts[0] != 0 or starts[-1] != count:
            raise ValueError("its documents must be contiguous")
    except Exception as error:  # numpy passes on errors of its header parser
        raise DamageError(f"split {name!r} is invalid: {error}") from error


def meta_digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def key_of(config: DataConfig) -> str:
    """Return 16 hex digits that identify the store's content. Reads the raw input; raises Misuse if it is missing."""
    parts = [FORMAT, corpus.corpus_content(config), tokenizer.tokenizer_content(config.tokenizer, config.vocab_size)]
    parts += [] if config.hold_out else ["nothing held out"]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def choices(config: DataConfig) -> dict[str, Any]:
    """Return the options that determine the tokens, except the text and its location, as JSON values."""
    shaping = {name: value for name, value in identity(config).items() if name not in UNSHAPING}
    named = {name: True for name in ("paths", "valid", "test") if getattr(config, name)}
    try:
        words = tokenizer.tokenizer_content(config.tokenizer, config.vocab_size)
    except Misuse:
        words = ["file"]
    return {**shaping, **named, "tokenizer": words}


def different(store: Store, config: DataConfig) -> list[str]:
    """Return the options, except the text, in which `store` and `config` differ."""
    made, here = store.meta["choices"], choices(config)
    known = made | {"tokenizer": made["tokenizer"][: len(here["tokenizer"])]}
    return sorted(f"data.{name}" for name in known.keys() | here.keys() if known.get(name) != here.get(name))
