"""Files that are whole or absent, whatever happens to the process or the machine; and their hashes."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Replaces `path` in one step: written aside, on disk, then renamed. Raises OSError and leaves nothing behind."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with named(path):
        try:
            aside.unlink(missing_ok=True)  # of a process of the same number that died, or a link put there
            with open(aside, "xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            sync(aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError within names `path`: that of a write to a full disk names no file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_all(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Each file of `contents` by its name, in a folder that is made where there is none. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write(folder / name, content)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk, so that a rename never outruns its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
