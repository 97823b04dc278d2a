"""The documents of each split of a DataConfig, read with `datasets`.

A split is a `datasets.Dataset` with one column, `text`. Each row is one document, which must not be empty.
"""

import hashlib
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posexp.config.sections import DataConfig, Source, Split
from posexp.data import files, hub, stdlib, tasks
from posexp.data.quiet import quiet
from posexp.data.readers import batch_rows, text_lengths
from posexp.errors import Misuse

LINE = re.compile(r"[^\n]*\n|[^\n]+")
STRATUM = 20  # documents of similar length
HELD_OUT = {Split.valid: 1, Split.test: 1}  # documents of each stratum: 5 % each
# More for the standard library, so that at least 20 validation documents have targets beyond 8,192 tokens.
STDLIB_HELD_OUT = {Split.valid: 4, Split.test: 1}


@dataclass
class Corpus:
    splits: dict[Split, Any]
    description: str
    notes: list[str] = field(default_factory=list)
    task: dict[str, Any] | None = None  # name, and size, the largest in training


def corpus_content(config: DataConfig) -> list[Any]:
    """Return what identifies the raw input, as JSON values: hashes of contents, without locations or times.

    Reads the raw bytes once, except for the hub. Raises Misuse for missing files.
    """
    check_pattern(config.document_start)
    if config.source is not Source.files and (config.paths or config.valid or config.test):
        raise Misuse(f"data.paths, data.valid and data.test belong to data=files, not to data={config.source.value}")
    if config.source is not Source.hub and config.dataset:
        raise Misuse(f"data.dataset belongs to data=hub, not to data={config.source.value}")
    if config.source is not Source.task and config.task:
        raise Misuse(f"data.task belongs to data={config.task}, not to data={config.source.value}")
    if config.source is Source.task:
        return ["task", *tasks.task_content(config), config.document_start]
    if config.source is Source.stdlib:
        return ["stdlib", stdlib.stdlib_content(), config.document_start, *STDLIB_HELD_OUT.values()]
    if config.source is Source.files:
        return ["files", *files.files_content(files.find_files(config)), config.field, config.document_start]
    return ["hub", *hub.hub_content(config), config.field, config.document_start]


def read_corpus(config: DataConfig, cache: Path) -> Corpus:
    """Return the documents of every split. `datasets` writes to `cache`, which must outlive the Corpus.

    Raises Misuse that names an invalid file and its problem.
    """
    import datasets

    with quiet():
        if config.source is Source.stdlib:
            parts = {Split.train: [(datasets.Dataset.from_dict({"text": stdlib.read_stdlib()}), False)]}
            corpus = Corpus({}, f"standard library of Python {platform.python_version()}")
        elif config.source is Source.files:
            found = files.find_files(config)
            parts = {split: files.read_files(paths, config.field, cache) for split, paths in found.items()}
            several = ", ".join(f"{split.value}: {describe(paths)}" for split, paths in found.items())
            corpus = Corpus({}, several if len(found) > 1 else describe(found[Split.train]))
            corpus.notes += files.skipped(config)
        elif config.source is Source.task:
            made = tasks.read_task(config)
            parts = {split: [(datasets.Dataset.from_dict({"text": held}), False)] for split, held in made.items()}
            corpus = Corpus({}, f"examples of the task {config.task} of sizes up to {config.task_size}")
            corpus.task = {"name": config.task, "size": config.task_size}
        else:
            loaded, fingerprint = hub.read_hub(config, cache)
            parts = {split: [(rows, True)] for split, rows in loaded.items()}
            corpus = Corpus({}, f"{config.dataset} {config.subset} at {config.revision} ({fingerprint})")
        splits = {split: documents(part, config.document_start, cache) for split, part in parts.items()}
        for split, rows in splits.items():
            if not len(rows):
                raise Misuse(f"the {split.value} split holds no document: all texts are empty")
        held_out = STDLIB_HELD_OUT if config.source is Source.stdlib else HELD_OUT
        corpus.splits = hold_out(splits, corpus.notes, held_out) if config.hold_out else splits
    return corpus


def describe(paths: list[Path]) -> str:
    names = [path.name for path in paths]
    return " ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)} files)"


def check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise Misuse(f"data.document_start={pattern!r} is not a regular expression: {error}") from error


def texts(rows: Any) -> Iterator[str]:
    """Yield the column `text`, read in batches of about 4 MB."""
    for batch in rows.iter(batch_size=batch_rows(rows)):
        yield from batch["text"]


def documents(parts: list[tuple[Any, bool]], start: str, cache: Path) -> Any:
    """Return one dataset of all parts, without empty texts. A new document starts at each line that matches `start`."""
    import datasets

    if start:
        generated = {"parts": parts, "pattern": start}
        rows = datasets.Dataset.from_generator(
            generate,
            features=datasets.Features({"text": datasets.Value("string")}),
            gen_kwargs=generated,
            cache_dir=str(cache),
        )
    else:
        rows = datasets.concatenate_datasets([rows for rows, _ in parts])
    kept = [index for index, length in enumerate(text_lengths(rows)) if length]
    return rows if len(kept) == len(rows) else rows.select(kept)


def generate(parts: list[tuple[Any, bool]], pattern: str) -> Iterator[dict[str, str]]:
    start = re.compile(pattern)
    for rows, stream in parts:
        for group in [texts(rows)] if stream else ([text] for text in texts(rows)):
            for text in divide(joined_lines(iter(group)), start):
                yield {"text": text}


def joined_lines(rows: Iterator[str]) -> Iterator[str]:
    """Yield the lines of all rows with their newlines. A row that does not end with a newline gets one."""
    unfinished = None
    for text in rows:
        if unfinished is not None:
            yield unfinished + "\n"
        unfinished = None if text.endswith("\n") else ""
        for match in LINE.finditer(text):
            line = match.group()
            if line.endswith("\n"):
                yield line
            else:
                unfinished = line
    if unfinished:
        yield unfinished


def divide(lines: Iterator[str], start: re.Pattern[str]) -> Iterator[str]:
    """Yield documents. Blank lines before a first heading belong to its document."""
    held: list[str] = []
    blank = True
    for line in lines:
        if not blank and start.search(line.rstrip("\n")):
            yield "".join(held)
            held, blank = [], True
        held.append(line)
        blank = blank and not line.strip()
    if not blank:
        yield "".join(held)


def hold_out(splits: dict[Split, Any], notes: list[str], held_out: dict[Split, int] = HELD_OUT) -> dict[Split, Any]:
    """Return `splits`; unless valid exists, take the missing valid and test splits from the training documents.

    The choice depends on the texts alone, not on their order or file names. Documents are sorted by length into strata,
    and each stratum gives its documents of lowest sha256, `held_out` for each split. So every split has long documents.
    Equal texts go to the same split.
    """
    if Split.valid in splits:
        return splits
    rows = splits[Split.train]
    missing = [split for split in (Split.valid, Split.test) if split not in splits]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts(rows)]
    lengths = dict(zip(hashes, text_lengths(rows), strict=True))
    if len(lengths) < 3:
        return splits | cut(rows, missing, notes)
    ranked = sorted(lengths, key=lambda name: (-(lengths[name] or 0), name))
    homes = [split for split in missing for _ in range(held_out[split])]
    home: dict[str, Split] = {}
    for first in range(0, max(1, len(ranked) // STRATUM) * STRATUM, STRATUM):
        home.update(zip(sorted(ranked[first : first + STRATUM]), homes, strict=False))
    places: dict[Split, list[int]] = {split: [] for split in (Split.train, *missing)}
    for index, name in enumerate(hashes):
        places[home.get(name, Split.train)].append(index)
    return splits | {split: rows.select(chosen) for split, chosen in places.items()}


def cut(rows: Any, missing: list[Split], notes: list[str]) -> dict[Split, Any]:
    """Take the last 5 % of each text for each missing split, the rest for training."""
    import datasets

    names = (Split.train, *missing)
    pieces: dict[Split, list[str]] = {split: [] for split in names}
    for text in texts(rows):
        ends = [len(text) * (20 - later) // 20 for later in range(len(missing), -1, -1)]
        for split, first, last in zip(names, [0, *ends], ends, strict=False):
            if first < last:
                pieces[split].append(text[first:last])
    held = " and for ".join(split.value for split in missing)
    notes.append(f"documents are too few ({len(rows)}) to hold out whole ones: 5 % of each text is kept for {held}")
    return {split: datasets.Dataset.from_dict({"text": kept}) for split, kept in pieces.items() if kept}
