"""Files that are whole or absent, whatever happens to the process or the machine; and their hashes.

A file is written aside, as .<name>.<machine>.<number>, and locked meanwhile. The kernel ends the lock with its process:
so the next writer can tell, and removes, what a killed one has left.
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
ASIDE = re.compile(r"\..+?(\.[0-9]{10})?\.[0-9]+")  # without the machine as posexp named them earlier
LONG = 24 * 3600.0  # seconds after which nobody writes any more, if no lock can tell


def write_file(path: Path, content: str | bytes) -> None:
    """Replaces `path` in one step: written aside, on disk, then renamed. Raises OSError and leaves nothing behind."""
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
    """A new file aside, locked where the file system has locks. Raises OSError."""
    while True:
        aside = path.with_name(f".{path.name}.{MACHINE}.{secrets.randbelow(10**6)}")
        with suppress(FileExistsError):
            file = open(aside, "xb")  # noqa: SIM115 - closed by the caller
            if lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
                return aside, file
            file.close()  # another writer was quicker to lock it, and has removed it


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what killed writers of `folder`, or of one file there, have left; nothing that is being written.

    A lock may not be seen from another machine: what one has left must be a day old.
    """
    pattern = "*" if name is None else glob.escape(name) + ".*"
    for aside in folder.glob(f".{pattern}"):
        if (parts := ASIDE.fullmatch(aside.name)) is None:
            continue
        with suppress(OSError):  # a link, or one that is gone
            handle = os.open(aside, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                free, old = lock(handle), time.time() - os.fstat(handle).st_mtime > LONG
                if free is not False and (old or (free and parts[1] in (None, f".{MACHINE}"))):
                    aside.unlink()
            finally:
                os.close(handle)


def lock(handle: int) -> bool | None:
    """Locks an open file for this process: False if another one has it, None where there are no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


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
        write_file(folder / name, content)


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
