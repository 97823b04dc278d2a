"""Documents from the user's own files: text, jsonl and parquet, plain or packed."""

import glob
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from posexp import whole
from posexp.config import DataConfig, Split
from posexp.data.quiet import raise_disk_error, reason, root
from posexp.errors import Misuse

KINDS = {".txt": "text", ".md": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
PACKED = {".gz", ".xz", ".zst"}


def find_files(config: DataConfig) -> dict[Split, list[Path]]:
    """The files of each split that is named in the config, in reading order. Raises Misuse naming what is missing."""
    if not config.paths:
        raise Misuse("data=files needs data.paths=<file, glob or folder>")
    named = {
        Split.train: ("paths", config.paths),
        Split.valid: ("valid", config.valid),
        Split.test: ("test", config.test),
    }
    return {split: expand(f"data.{key}", value) for split, (key, value) in named.items() if value}


def expand(key: str, value: Any) -> list[Path]:
    """The files that a path, glob, folder or list of these stands for, each once."""
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise Misuse(f"{key}={value!r} must be a path, a glob, a folder or a list of these")
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in expand_one(key, pattern):
            found.setdefault(path.resolve(), path)
    for path in found.values():
        if path.stat().st_size == 0:
            raise Misuse(f"{path} is an empty file")
        if kind(path) == "parquet" and packing(path):
            raise Misuse(f"{path}: parquet is packed inside already; unpack the {packing(path)}")
    return list(found.values())


def expand_one(key: str, pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        if files := in_folder(path):
            return files
        raise Misuse(f"{key}: the folder {path} holds no file with a known suffix ({', '.join(KINDS)})")
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if files := [match for match in matches if match.is_file()]:
        return files
    # A glob that matches folders only means what is in them.
    if files := [file for match in matches for file in in_folder(match)]:
        return files
    raise Misuse(f"{key}: {'no file matches' if glob.has_magic(pattern) else 'there is no file'} {path}")


def in_folder(folder: Path) -> list[Path]:
    """All files below `folder` with a known suffix, hidden ones left out, in the order of their names."""
    found = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and inner_suffix(path) in KINDS and not any(part.startswith(".") for part in parts):
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def packing(path: Path) -> str:
    """.gz, .xz, .zst or nothing."""
    suffix = path.suffix.lower()
    return suffix if suffix in PACKED else ""


def inner_suffix(path: Path) -> str:
    return (Path(path.stem) if packing(path) else path).suffix.lower()


def kind(path: Path) -> str:
    """text, json or parquet: the name of the reader in `datasets`. A file of unknown suffix is text."""
    return KINDS.get(inner_suffix(path), "text")


def content(files: dict[Split, list[Path]]) -> list[list[str]]:
    """[split, kind, packing, sha256 of the file as it lies there] of every file."""
    return [
        [split.value, kind(path), packing(path), file_digest(path)] for split, paths in files.items() for path in paths
    ]


def file_digest(path: Path) -> str:
    """sha256 of an input file's bytes. Raises Misuse if it cannot be read."""
    try:
        return whole.sha256(path)
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror or error}") from error


def read(paths: list[Path], field: str, cache: Path) -> list[tuple[Any, bool]]:
    """(dataset with the column `text`, whether its rows are pieces of one stream) for runs of like files.

    Each text file is one row, whose line ends are \\n and whose byte order mark is dropped; row files come one by one.
    `cache` is where `datasets` may keep its own files. Raises Misuse naming the file that cannot be read.
    """
    read_: list[tuple[Any, bool]] = []
    for name, run in groupby(paths, key=kind):
        if name == "text":
            read_.append((read_texts(list(run), cache), False))
        else:
            read_ += [(read_rows(name, path, field, cache), True) for path in run]
    return read_


def read_texts(paths: list[Path], cache: Path) -> Any:
    options = {"sample_by": "document", "encoding": "utf-8-sig"}
    try:
        rows = load_dataset("text", paths, cache, **options)
    except Exception as error:  # datasets wraps whatever the file raised
        raise_disk_error(error)
        for path in paths:
            try:
                load_dataset("text", [path], cache, **options)
            except Exception as own:
                raise Misuse(f"{path} {complaint(own)}") from own
        raise Misuse(f"cannot read the text files: {reason(error)}") from error
    for path, length in zip(paths, text_lengths(rows), strict=True):
        if not length:
            raise Misuse(f"{path} is an empty file")
    return rows


def read_rows(name: str, path: Path, field: str, cache: Path) -> Any:
    try:
        rows = load_dataset(name, [path], cache)
    except StopIteration as error:  # how datasets 5 says that a json file has no rows
        raise Misuse(f"{path} is an empty file") from error
    except Exception as error:  # datasets wraps whatever the file raised
        raise_disk_error(error)
        raise Misuse(f"{path} {complaint(error)}") from error
    if not len(rows):
        raise Misuse(f"{path} holds no rows")
    return text_column(rows, field, str(path))


def load_dataset(name: str, paths: list[Path], cache: Path, **options: Any) -> Any:
    import datasets

    # glob.escape, because datasets takes file names for globs.
    files = {"train": [glob.escape(str(path.resolve())) for path in paths]}
    return datasets.load_dataset(name, data_files=files, split="train", cache_dir=str(cache), **options)


def complaint(error: BaseException) -> str:
    inner = root(error)
    module, text = type(inner).__module__, reason(inner)
    if isinstance(inner, UnicodeDecodeError):
        return f"is not UTF-8: byte 0x{inner.object[inner.start]:02x} at {inner.start}"
    if isinstance(inner, EOFError) or module in {"gzip", "_lzma", "lzma", "zlib"} or text.startswith("zstd"):
        return f"cannot be unpacked: {text}"
    return f"cannot be read: {text}"


def text_column(rows: Any, field: str, name: str) -> Any:
    """`rows` with the column `field` alone, as `text`. Raises Misuse, with `name`, if it or a row's text is missing."""
    import datasets
    import pyarrow

    if field not in rows.column_names:
        raise Misuse(
            f"{name} has no field {field!r}; its fields: {', '.join(rows.column_names)} (choose with data.field)"
        )
    column = rows.select_columns([field])
    if field != "text":
        column = column.rename_column(field, "text")
    for index, length in enumerate(text_lengths(column)):
        if length is None:
            present = [key for key, value in rows[index].items() if value is not None]
            raise Misuse(f"{name}: row {index + 1} has no field {field!r}; its fields: {', '.join(present) or 'none'}")
    try:
        for batch in column.with_format("arrow").iter(batch_size=batch_rows(column)):
            batch.validate(full=True)
    except pyarrow.ArrowInvalid as error:  # neither reader checks that strings are UTF-8
        raise Misuse(f"{name} is not UTF-8: {reason(error)}") from error
    dtype = getattr(column.features["text"], "dtype", "nested")
    if dtype not in {"string", "large_string"}:
        raise Misuse(f"{name}: the field {field!r} is {dtype}, not text")
    # One type for all, so that they can be joined.
    return column if dtype == "string" else column.cast_column("text", datasets.Value("string"))


def text_lengths(rows: Any) -> Iterator[int | None]:
    """UTF-8 bytes of each text; None for a row without one."""
    import pyarrow
    import pyarrow.compute

    for batch in rows.with_format("arrow").iter(batch_size=batch_rows(rows)):
        column = batch["text"]
        if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
            yield from pyarrow.compute.binary_length(column).to_pylist()
        else:  # the caller refuses the type; here only whether something is there matters
            yield from (1 if there else None for there in column.is_valid().to_pylist())


def batch_rows(rows: Any) -> int:
    """How many rows make about 4 MB, at most 1000."""
    mean = rows.data.nbytes / max(1, len(rows.data)) + 1
    return min(1000, max(1, int(4e6 / mean)))
