"""The user's own files: how options name them, and which reader loads each."""

import glob
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from posexp.config.sections import DataConfig, Split
from posexp.data.readers import BINARY, PACKED, complaint, opened, texts
from posexp.errors import Misuse
from posexp.storage import atomic

KINDS = {
    **dict.fromkeys((".txt", ".md"), "text"),
    **dict.fromkeys((".jsonl", ".json", ".ndjson", ".jsonlines"), "json"),
    **{f".{name}": name for name in ("csv", "tsv", "parquet", "arrow")},
}
READABLE = f"{', '.join(KINDS)}; packed with {', '.join(PACKED)}"


def find_files(config: DataConfig) -> dict[Split, list[Path]]:
    """Return the files of each split of the config, in reading order. Raises Misuse if files are missing."""
    if not config.paths:
        raise Misuse("data=files needs data.paths=<file, glob or folder>")
    return {split: expand(f"data.{key}", value) for split, (key, value) in split_options(config).items()}


def split_options(config: DataConfig) -> dict[Split, tuple[str, Any]]:
    """Return (name of the option, its value) for each split that the config names."""
    settings = {Split.train: "paths", Split.valid: "valid", Split.test: "test"}
    return {split: (key, value) for split, key in settings.items() if (value := getattr(config, key))}


def expand(key: str, value: Any, suffixes: Collection[str] = KINDS) -> list[Path]:
    """Return the files of a path, glob, folder or list of these, once each; of a folder those with these `suffixes`."""
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise Misuse(f"{key}={value!r} must be a path, a glob, a folder or a list of these")
    found: dict[Path, Path] = {}
    for pattern in patterns:
        there = named(pattern)
        if not there:
            missing = "no file matches" if glob.has_magic(pattern) else "there is no file"
            raise Misuse(f"{key}: {missing} {Path(pattern).expanduser()}")
        if there[0].is_dir():
            folder = there[0]
            there = [file for one in there for file in sorted_files(one) if is_known(one, file, suffixes)]
            if not there:
                readable = READABLE if suffixes is KINDS else ", ".join(suffixes)
                raise Misuse(f"{key}: the folder {folder} holds no file with a known suffix ({readable})")
        for path in there:
            found.setdefault(path.resolve(), path)
    for path in found.values():
        if path.stat().st_size == 0:
            raise Misuse(f"{path} is an empty file")
        if (name := KINDS.get(inner_suffix(path))) in BINARY and packing(path):
            raise Misuse(f"{path}: {name} is packed inside already; unpack the {packing(path)}")
    return list(found.values())


def named(pattern: str) -> list[Path]:
    """Return the file or folder that `pattern` names, else the files that it matches as a glob, else the folders."""
    path = Path(pattern).expanduser()
    found = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    return [one for one in found if one.is_file()] or [one for one in found if one.is_dir()]


def sorted_files(folder: Path) -> list[Path]:
    """Return all files and links below `folder`, sorted by name."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def is_known(folder: Path, path: Path, suffixes: Collection[str] = KINDS) -> bool:
    """Return whether a file of a folder is read, that is, has a known suffix and is not hidden."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and inner_suffix(path) in suffixes and not hidden


def skipped(config: DataConfig) -> list[str]:
    """Return a line for each folder of the config that has skipped files."""
    lines = []
    for key, value in split_options(config).values():
        found = [one for pattern in ([value] if isinstance(value, str) else value) for one in named(pattern)]
        for folder in filter(Path.is_dir, found):
            names = [str(path.relative_to(folder)) for path in sorted_files(folder) if not is_known(folder, path)]
            if names:
                some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                lines.append(f"data.{key}: skipped in {folder}, because hidden or of no known suffix: {some}")
    return lines


def packing(path: Path) -> str:
    """Return the suffix of a packed file (.gz, .zst, …), or an empty string."""
    suffix = path.suffix.lower()
    return suffix if suffix in PACKED else ""


def inner_suffix(path: Path) -> str:
    return (Path(path.stem) if packing(path) else path).suffix.lower()


def kind(path: Path) -> str:
    """Return the name of the file's reader; for an unknown suffix json if line 1 is a JSON object, else text."""
    if known := KINDS.get(inner_suffix(path)):
        return known
    try:
        with opened(path, packing(path)) as file:
            head = file.read(4096)
            line = head.split(b"\n")[0] if b"\n" in head else head + file.readline()
    except Misuse:
        raise
    except Exception as error:  # decompressors raise errors of their own
        raise Misuse(f"{path} {complaint(error, packing(path))}") from error
    if b"\0" in head:
        remedy = "read its token ids by data=tokens" if path.suffix == ".bin" else "unpack or convert it"
        raise Misuse(f"{path} is neither text nor of a known suffix ({READABLE}): {remedy}")
    try:
        return "json" if isinstance(json.loads(line), dict) else "text"
    except ValueError:
        return "text"


def files_content(files: dict[Split, list[Path]]) -> list[list[str]]:
    """Return [split, kind, packing, sha256 of the packed file] for every file."""
    return [
        [split.value, kind(path), packing(path), file_digest(path)] for split, paths in files.items() for path in paths
    ]


def file_digest(path: Path) -> str:
    """Return the sha256 of an input file. Raises Misuse if the file cannot be read."""
    try:
        return atomic.sha256(path)
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror or error}") from error


def read_files(paths: list[Path], field: str) -> Iterator[Iterator[str]]:
    """Yield the texts of each file. Raises Misuse that names an unreadable file."""
    for path in paths:
        yield texts(path, kind(path), packing(path), field)
