"""Locks: one process at a time does a thing, whatever became of the ones before it.

A lock is a file that its holder has flocked, and beside it a file that says who that is. The kernel lets go of it when
the holder dies. Where the file system has no flock, the presence of <lock>.held stands for it: it names its holder, and
one on this machine that is gone is passed over; one of another machine can only be removed by hand.
"""

import errno
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from posexp.storage import atomic, untrusted

if TYPE_CHECKING:
    from filelock import BaseFileLock

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # what flock answers where there is none
NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}
# Seconds after which a lock counts as taken: `taken` has one for a moment, and a new holder is yet to write its name.
PATIENCE = 1.0
POLL = 0.05


class Taken(Exception):
    """Another process has the lock; the text says which."""


@contextmanager
def hold(
    lock: Path, holder: Path, wait: Callable[[str], None] | None = None, patience: float = PATIENCE
) -> Iterator[None]:
    """Holds `lock` for this process, and says so in the file `holder`.

    If another process still has it after `patience` seconds, `wait` is told which, and it is waited for. Raises Taken
    if there is no `wait`; OSError where the folder cannot be written.
    """
    from filelock import Timeout

    try:
        held = acquire(lock, patience)
    except Timeout:
        if wait is None:
            raise Taken(who(lock, holder)) from None
        wait(who(lock, holder))
        held = acquire(lock, -1)
    try:
        here = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # a full disk: whoever waits is then not told for whom
            atomic.write_file(holder, json.dumps(here))
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        held.release()


def taken(lock: Path) -> bool:
    """Whether some process holds `lock` right now. In a folder that cannot be written, as far as reading tells."""
    from filelock import Timeout

    if lock.is_symlink() or not (lock.exists() or marker(lock).exists()):
        return False  # no lock of posexp's is a link
    try:
        acquire(lock, 0).release()
    except Timeout:
        return True
    except OSError as error:
        if error.errno not in NO_WRITING:
            raise
        return marker(lock).exists() or shared(lock)
    return False


def acquire(lock: Path, timeout: float) -> "BaseFileLock":
    """Raises filelock.Timeout after `timeout` seconds; -1: never."""
    from filelock import FileLock, SoftFileLock

    with warnings.catch_warnings(action="ignore"):
        hard = FileLock(lock, fallback_to_soft=False)
        try:
            hard.acquire(timeout=timeout, poll_interval=POLL)
            return hard
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        soft = SoftFileLock(marker(lock))
        soft.acquire(timeout=timeout, poll_interval=POLL)
        return soft


def marker(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.held")


def shared(lock: Path) -> bool:
    """Whether a lock that this process cannot write is held, asked by a lock for reading."""
    import fcntl

    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in {errno.EWOULDBLOCK, errno.EACCES}
        return False


def who(lock: Path, holder: Path) -> str:
    try:
        owner = untrusted.json_of(untrusted.read_bytes(holder))
        text = f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        text = "another process"
    if marker(lock).exists():
        text += f" (there are no file locks here: if that process is gone, remove {marker(lock)})"
    return text
