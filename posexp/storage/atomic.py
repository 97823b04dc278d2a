"""Atomic writes of files, which are complete or absent even after a crash; and hashes of files.

A file is first written as a temporary file .<name>.<machine>.<number>, which is locked meanwhile. The kernel releases
the lock when the process ends, so the next writer can detect and remove the leftovers of a killed process.
"""

import fcntl
import glob
import hashlib
import os
import platform
import re
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MACHINE = f"{zlib.crc32(platform.node().encode()):010d}"
ASIDE = re.compile(r"\..+?(\.[0-9]{10})?\.[0-9]+")  # older versions of posexp wrote names without the machine
LONG = 24 * 3600.0  # seconds after which a file without a lock counts as abandoned


def write_file(path: Path, content: str | bytes) -> None:
    """Write `path` atomically, by renaming a synced temporary file. Raises OSError, and then leaves no file behind."""
    with named(path):
        remove_leftovers(path.parent, path.name)
        aside, file = begin(path)
        try:
            with file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                sync(aside)
                os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def begin(path: Path) -> tuple[Path, BinaryIO]:
    """Open a new temporary file for `path`, locked if the file system has locks. Raises OSError."""
    while True:
        aside = path.with_name(f".{path.name}.{MACHINE}.{secrets.randbelow(10**6)}")
        with suppress(FileExistsError):
            file = open(aside, "xb")  # noqa: SIM115 - closed by the caller
            if lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
                return aside, file
            file.close()  # another writer locked the file first, and has removed it


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of killed writers from `folder`, or those of the file `name`; skip files in use.

    Locks may be invisible to other machines, so files of another machine must be a day old.
    """
    pattern = "*" if name is None else glob.escape(name) + ".*"
    for aside in folder.glob(f".{pattern}"):
        if (parts := ASIDE.fullmatch(aside.name)) is None:
            continue
        with suppress(OSError):  # a link, or already removed
            handle = os.open(aside, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                free, old = lock(handle), time.time() - os.fstat(handle).st_mtime > LONG
                if free is not False and (old or (free and parts[1] in (None, f".{MACHINE}"))):
                    aside.unlink()
            finally:
                os.close(handle)


def lock(handle: int) -> bool | None:
    """Lock an open file. Return False if another process has the lock, None if the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of the block, since the error of a write to a full disk names no file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_all(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write each file of `contents`, by name, into `folder`, which is created if missing. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_file(folder / name, content)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk, so that a rename cannot precede the content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
