"""The locks between processes, which survive a crash of their holder.

A lock is a file under flock, beside a file that names its holder. The kernel releases the flock when the holder ends.
On a file system without flock, the existence of <lock>.held is the lock. That file names its holder, and is ignored if
the holder is a process of this machine that has ended. The file of another machine must be removed by hand.
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

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # from flock on a file system without locks
NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}
# Seconds after which a lock counts as taken: `taken` holds a lock briefly, and a new holder must first write its name.
TIMEOUT = 1.0
POLL = 0.05


class LockHeld(Exception):
    """A lock of another process, which the text names."""


@contextmanager
def hold(
    lock: Path, holder: Path, wait: Callable[[str], None] | None = None, patience: float = TIMEOUT
) -> Iterator[None]:
    """Hold `lock` in the block, and name this process in the file `holder`.

    If another process still has the lock after `patience` seconds, `wait` is called with its description and the lock
    is awaited. Raises LockHeld if `wait` is None, OSError if the folder cannot be written.
    """
    from filelock import Timeout

    try:
        held = acquire(lock, patience)
    except Timeout:
        if wait is None:
            raise LockHeld(who(lock, holder)) from None
        wait(who(lock, holder))
        held = acquire(lock, -1)
    try:
        here = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # a full disk: waiting processes then cannot name the holder
            atomic.write_file(holder, json.dumps(here))
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        held.release()


def taken(lock: Path) -> bool:
    """Return whether a process holds `lock` now. In a read-only folder, only what can be read is checked."""
    from filelock import Timeout

    if lock.is_symlink() or not (lock.exists() or marker(lock).exists()):
        return False  # posexp creates no links as locks
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
    """Acquire `lock`. Raises filelock.Timeout after `timeout` seconds; -1 waits forever."""
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
    """Return whether a lock in a read-only folder is held, by trying a shared lock."""
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
        text += f" (this file system has no locks: if that process has ended, remove {marker(lock)})"
    return text
