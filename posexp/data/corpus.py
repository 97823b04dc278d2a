"""The documents of each split of a DataConfig. No document is empty."""

import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from posexp.config.sections import DataConfig, Source, Split
from posexp.data import entities, files, hub, stdlib, tasks, token_files, tracks
from posexp.data.documents import HELD_OUT, Documents, hold_out, write_texts
from posexp.errors import Misuse

LINE = re.compile(r"[^\n]*\n|[^\n]+")
# More for the standard library, so that at least 20 validation documents have targets beyond 8,192 tokens.
STDLIB_HELD_OUT = {Split.valid: 4, Split.test: 1}

# The sources that have an option; the others refuse it.
BELONGS = {
    **dict.fromkeys(("paths", "valid", "test"), ("files", "tokens")),
    "dataset": ("hub", "tokens"),
    "task": ("task",),
    "track": ("track",),
    "document_start": ("stdlib", "files", "hub", "task"),
    "document_end": ("tokens",),
}

END: Any = object()  # follows the last row of a stream
Streams = Iterable[Iterable[str]]  # successive texts; a document may go on in the next text of its stream


@dataclass
class Corpus:
    splits: dict[Split, Documents]
    description: str
    notes: list[str] = field(default_factory=list)
    task: dict[str, Any] | None = None  # name, and size, the largest in training
    track: dict[str, Any] | None = None  # name, and number of symbols


def corpus_content(config: DataConfig) -> list[Any]:
    """Return what identifies the raw input, as JSON values: hashes of contents, without locations or times."""
    check_options(config)
    if config.source is Source.task:
        return ["task", *tasks.task_content(config), config.document_start]
    if config.source is Source.stdlib:
        return ["stdlib", stdlib.stdlib_content(), config.document_start, *STDLIB_HELD_OUT.values()]
    if config.source is Source.files:
        renamed = [entities.RULE, config.names] if config.names else []
        found = files.files_content(files.find_files(config))
        return ["files", *found, config.field, config.document_start, *renamed]
    if config.source is Source.track:
        return ["track", *tracks.track_content(config)]
    if config.source is Source.tokens:
        return ["tokens", *token_files.token_content(config), config.document_end]
    return ["hub", *hub.hub_content(config), config.field, config.document_start]


def check_options(config: DataConfig) -> None:
    """Raise Misuse for an option that the source of the text does not have, or an invalid regular expression."""
    source = config.source.value
    for name, sources in BELONGS.items():
        if getattr(config, name) not in (None, "") and source not in sources:
            here = getattr(config, name) if name in ("task", "track") else " or ".join(sources)
            raise Misuse(f"data.{name} belongs to data={here}, not to data={source}")
    if config.names and (config.source is not Source.files or config.tokenizer in ("bpe", "none")):
        raise Misuse(f"data.names={config.names} needs data=files and data.tokenizer=bytes, whose tokens are scored")
    ids = config.source in (Source.tokens, Source.track)
    if config.tokenizer == "none" and not ids:
        raise Misuse(f"data.tokenizer=none belongs to data=tokens, not to data={source}")
    if config.tokenizer != "none" and config.source is Source.track:
        raise Misuse("a track has token ids: set data.tokenizer=none")
    if config.tokenizer == "bpe" and config.source is Source.tokens:
        remedy = "set data.tokenizer=none, or the tokenizer of the ids"
        raise Misuse(f"data=tokens cannot learn a bpe, which needs text: {remedy}")
    try:
        re.compile(config.document_start)
    except re.error as error:
        raise Misuse(f"data.document_start={config.document_start!r} is not a regular expression: {error}") from error


def read_corpus(config: DataConfig, cache: Path, vocab_size: int | None) -> Corpus:
    """Return the documents of every split. Their text is written to the new folder `cache`, which they need."""
    if config.source is Source.tokens:
        corpus = Corpus({}, described(token_files.find_token_files(config)))
        assert vocab_size is not None
        corpus.splits = token_files.read_token_files(config, vocab_size)
    elif config.source is Source.track:
        about = f"{config.track_documents:,} documents of {config.vocab_size} symbols of the track {config.track}"
        corpus = Corpus(tracks.read_track(config), about)
        corpus.track = {"name": config.track, "symbols": config.vocab_size}
    else:
        cache.mkdir()
        corpus, streams = open_corpus(config, cache)
        for split, found in streams.items():
            texts = divided(found, config.document_start) if config.document_start else chain.from_iterable(found)
            if config.names:
                texts = entities.with_new_names(texts, split, config.names)
            corpus.splits[split] = write_texts(texts, cache / f"{split.value}.txt")
    for split, documents in corpus.splits.items():
        if not len(documents):
            raise Misuse(f"the {split.value} split holds no document: all texts are empty")
    if config.hold_out:
        held_out = STDLIB_HELD_OUT if config.source is Source.stdlib else HELD_OUT
        corpus.splits = hold_out(corpus.splits, corpus.notes.append, held_out)
    return corpus


def open_corpus(config: DataConfig, cache: Path) -> tuple[Corpus, dict[Split, Streams]]:
    """Return a description of the corpus, still without documents, and the texts of its splits."""
    if config.source is Source.stdlib:
        corpus = Corpus({}, f"standard library of Python {platform.python_version()}")
        return corpus, {Split.train: ([text] for text in stdlib.read_stdlib())}
    if config.source is Source.files:
        found = files.find_files(config)
        corpus = Corpus({}, described(found), files.skipped(config))
        return corpus, {split: files.read_files(paths, config.field) for split, paths in found.items()}
    if config.source is Source.task:
        corpus = Corpus({}, f"examples of the task {config.task} of sizes up to {config.task_size}")
        corpus.task = {"name": config.task, "size": config.task_size}
        return corpus, {split: ([text] for text in texts) for split, texts in tasks.read_task(config).items()}
    loaded, fingerprint = hub.read_hub(config, cache)
    corpus = Corpus({}, f"{config.dataset} {config.subset} at {config.revision} ({fingerprint})")
    return corpus, {split: [texts] for split, texts in loaded.items()}


def described(found: dict[Split, list[Path]]) -> str:
    """Return the names of the files of each split."""
    lines = {}
    for split, paths in found.items():
        names = [path.name for path in paths]
        lines[split] = " ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)} files)"
    if len(lines) == 1:
        return lines[Split.train]
    return ", ".join(f"{split.value}: {line}" for split, line in lines.items())


def divided(streams: Streams, pattern: str) -> Iterator[str]:
    """Yield the documents of each stream. A line that matches `pattern` begins a new document.

    A row that does not end with a newline gets one, unless it is the last. Blank lines before a first heading belong to
    its document.
    """
    start = re.compile(pattern)
    for stream in streams:
        held: list[str] = []
        blank = True
        for row, following in pairwise(chain(stream, [END])):
            whole = row.endswith("\n") or following is END
            for line in LINE.findall(row if whole else row + "\n"):
                if not blank and start.search(line.rstrip("\n")):
                    yield "".join(held)
                    held, blank = [], True
                held.append(line)
                blank = blank and not line.strip()
        if not blank:
            yield "".join(held)
