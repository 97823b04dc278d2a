"""The loader of token stores, which opens a store of the cache, or builds it from the text under a lock.

posexp/data/store.py describes the files of a store.
"""

import errno
import json
import os
import platform
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from posexp.config.fields import check_room
from posexp.config.sections import DataConfig, Split
from posexp.data import corpus, tokenizer
from posexp.data.documents import Documents
from posexp.data.store import FORMAT, DamageError, Say, Store, choices, different, key_of, meta_digest
from posexp.data.tokenizer import Piece
from posexp.errors import Misuse, RunFailed
from posexp.output.console import logger, progress, say
from posexp.storage import atomic, locks, untrusted

# Codes of an OSError for which another cache folder helps. `datasets` needs locks.
WRONG_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR} | locks.NO_LOCKS


def load_store(config: DataConfig, say: Say = say) -> Store:
    """Return the store of `config`, built if missing or damaged. Several processes may call load_store at once.

    A store that data.store names is loaded without its text, and built only from text whose hash is that name. Raises
    Misuse for input that is invalid, and for a cache folder that cannot be written; RunFailed for a full disk.
    """
    folder = Path(config.cache).expanduser() / "tokens" / (config.store or key_of(config))
    check_room("data.cache", folder)
    store = find_store(folder, say)
    if config.store and (store is None or different(store, config)):
        check_text(config, folder, store)
    if store:
        logger.debug(f"token store: {folder}")
        return store
    lock, holder = Path(f"{folder}.lock"), Path(f"{folder}.holder.json")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.hold(lock, holder, lambda who: say(f"waiting for {who}, which is building this token store")):
            # Another process may have built the store while this one waited.
            if store := find_store(folder, lambda line: None):
                return store
            build_store(config, folder, say)
        return Store(folder)
    except OSError as error:
        text = f"cannot write the token store in {folder.parent}: {error.strerror or error}"
        if error.errno in WRONG_PLACE:
            raise Misuse(f"{text}; choose another folder with data.cache") from error
        raise RunFailed(text) from error
    except DamageError as error:
        raise RunFailed(f"the token store {folder} was damaged while it was built: {error}") from error


def check_text(config: DataConfig, folder: Path, store: Store | None) -> None:
    """Raise Misuse unless the local text gives the store that data.store names."""
    try:
        key = key_of(config)
        found = f"the local text gives {key}"
    except Misuse as error:
        key, found = None, f"it cannot be built here: {error}"
    if key == config.store:
        return
    if store is None:
        raise Misuse(f"no token store {folder}, and {found}")
    raise Misuse(f"the token store {folder} was built with another {', '.join(different(store, config))}")


def find_store(folder: Path, say: Say) -> Store | None:
    """Return the store in `folder`, or None if it is missing or damaged; `say` prints the damage."""
    if not folder.is_dir():
        return None
    try:
        return Store(folder)
    except DamageError as error:
        say(f"the token store {folder} is damaged ({error}): building a new one")
        return None


def build_store(config: DataConfig, folder: Path, say: Say) -> None:
    """Write the store to a temporary folder, rename it to `folder`, whose lock the caller holds, and tidy up."""
    for leftover in folder.parent.glob(f"{folder.name}.*-building"):
        shutil.rmtree(leftover, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.", suffix="-building"))
    try:
        write_store(config, aside / "store", aside / "text", say)
        if folder.exists():
            os.rename(folder, aside / "damaged")
        os.rename(aside / "store", folder)
        atomic.sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_store(config: DataConfig, folder: Path, cache: Path, say: Say) -> None:
    """Write all files of a store into the new `folder`, and the text of the corpus to the new folder `cache`."""
    folder.mkdir()
    built = None if config.tokenizer == "bpe" else tokenizer.make(config.tokenizer, config.vocab_size, ())
    source = corpus.read_corpus(config, cache, tokenizer.vocabulary_size(built) if built else None)
    for note in source.notes:
        say(note)
    say(f"building the token store of {source.description}")
    read = [*([] if built else [source.splits[Split.train]]), *source.splits.values()]
    bar = progress("token store", sum(documents.size for documents in read), "%")
    if built is None:
        with bar:
            built = tokenizer.learn_bpe(texts_of(source.splits[Split.train], bar), config.vocab_size)
    size = tokenizer.vocabulary_size(built)
    if config.tokenizer == "bpe" and size < config.vocab_size:
        source.notes.append(f"the training split gives only {size} of the {config.vocab_size} entries of the bpe")
        say(source.notes[-1])
    atomic.write_file(folder / "tokenizer.json", built.to_str(pretty=True).encode())
    dtype = np.dtype(np.uint16 if size <= 1 << 16 else np.uint32)
    marks = tokenizer.mark_ids(config.tokenizer, built)
    splits = {}
    for split, documents in source.splits.items():
        if documents.is_text:
            pieces = tokenizer.encode(built, documents.texts(), config.tokenizer in tokenizer.OWN, dtype)
        else:
            pieces = tokenizer.ids_of(built, documents)
        with bar:
            watched = marked(watch(pieces, bar, documents.is_text), marks)
            splits[split.value] = write_split(folder, split.value, watched, dtype)
        counts = [
            f"{count:,} {name if count > 1 else name[:-1]}" for name, count in splits[split.value].items() if count
        ]
        say(f"{split.value if len(source.splits) > 1 else 'all'}: {', '.join(counts)}")
    files = {
        path.name: {"size": path.stat().st_size, "sha256": atomic.sha256(path)} for path in sorted(folder.iterdir())
    }
    meta = {
        "format": FORMAT,
        "choices": choices(config),
        "corpus": source.description,
        "notes": source.notes,
        "python": platform.python_version(),
        "dtype": dtype.name,
        "vocab_size": size,
        "tokenizer": config.tokenizer if config.tokenizer in tokenizer.OWN else "file",
        "splits": splits,
        "files": files,
        **({"task": source.task} if source.task else {}),
        **({"track": source.track} if source.track else {}),
        **({"marks": sorted(marks.values())} if marks else {}),
    }
    meta = untrusted.printable(meta)  # as `read_meta` loads it
    atomic.write_file(folder / "store.json", json.dumps(meta | {"sha256": meta_digest(meta)}, indent=1).encode())
    atomic.sync(folder)


def texts_of(documents: Documents, bar: progress) -> Iterator[str]:
    """Yield the texts of a split, and let `bar` count their bytes."""
    for text, (_, start, end) in zip(documents.texts(), documents.places.tolist(), strict=True):
        yield text
        bar.advance(end - start)


def watch(pieces: Iterator[Piece], bar: progress, is_text: bool) -> Iterator[Piece]:
    """Yield the pieces of a split, and let `bar` count their bytes, or their ids if they are not text."""
    for ids_N, ends, size in pieces:
        yield ids_N, ends, size
        bar.advance(size if is_text else len(ids_N))


def marked(pieces: Iterator[Piece], marks: dict[str, int]) -> Iterator[Piece]:
    """Put the token `bos` of `marks` before each document, and `eos` after it, as far as `marks` has them."""
    marks_1 = {key: np.array([mark]) for key, mark in marks.items()}
    begins = True
    for ids_N, ends, size in pieces:
        before = [marks_1["bos"]] if begins and "bos" in marks else []
        after = [marks_1["eos"]] if ends and "eos" in marks else []
        yield np.concatenate([*before, ids_N, *after]) if marks else ids_N, ends, size
        begins = ends


def write_split(folder: Path, name: str, pieces: Iterator[Piece], dtype: np.dtype) -> dict[str, int]:
    """Write <name>.bin and <name>.documents.npy; return the numbers of documents, tokens and bytes."""
    starts, total, size = array("q", [0]), 0, 0
    with open(folder / f"{name}.bin", "wb") as file:
        for ids_N, ends, length in pieces:
            file.write(ids_N.astype(dtype, copy=False).data)
            total += len(ids_N)
            size += length
            if ends and total > starts[-1]:  # an external tokenizer may give no tokens for a document
                starts.append(total)
    if not total:
        raise Misuse(f"the {name} split holds no token")
    np.save(folder / f"{name}.documents.npy", np.array(starts, dtype=np.int64), allow_pickle=False)
    for path in folder.glob(f"{name}.*"):
        atomic.sync(path)
    return {"documents": len(starts) - 1, "tokens": total, "bytes": size}
