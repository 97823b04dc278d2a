"""Atomic writes of files, which are complete or absent even after a crash; and hashes of files.

A file is first written as a temporary file .<name>.<machine>.<process>. The next writer removes those of processes of
its machine that have ended.
"""

import glob
import hashlib
import os
import platform
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

MACHINE = f"{zlib.crc32(platform.node().encode()):010d}"
ASIDE = re.compile(r"\..+?(?:\.([0-9]{10}))?\.([0-9]+)")  # older versions of posexp wrote names without the machine
LONG = 24 * 3600.0  # seconds after which a file of another machine counts as abandoned


def write_file(path: Path, content: str | bytes) -> None:
    """Write `path` atomically, by renaming a synced temporary file. Raises OSError, and then leaves no file behind."""
    with naming(path):
        remove_leftovers(path.parent, path.name)
        aside = path.with_name(f".{path.name}.{MACHINE}.{os.getpid()}")
        aside.unlink(missing_ok=True)  # of an earlier process with this number
        try:
            with open(aside, "xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                sync(aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of killed writers from `folder`, or those of the file `name`.

    Files of another machine must be a day old.
    """
    pattern = "*" if name is None else glob.escape(name) + ".*"
    for aside in folder.glob(f".{pattern}"):
        if (parts := ASIDE.fullmatch(aside.name)) is None or aside.is_symlink() or not aside.is_file():
            continue
        with suppress(OSError):  # already removed
            old = time.time() - aside.stat().st_mtime > LONG
            if old or (parts[1] == MACHINE and not is_running(int(parts[2]))):
                aside.unlink()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    return True


@contextmanager
def naming(path: Path) -> Iterator[None]:
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
