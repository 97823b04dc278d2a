"""The loader of token stores, which opens a store of the cache or builds it under a lock."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posexp.config.fields import check_room
from posexp.config.sections import DataConfig
from posexp.data.store import DamageError, Say, Store, different, key_of
from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.output.console import logger, say
from posexp.storage import locks


def load_store(config: DataConfig, say: Say = say) -> Store:
    """Return the store of `config`, built if missing or damaged. Several processes may call load_store at once.

    A store that data.store names is loaded without its text, and built only from text whose hash is that name. Raises
    Misuse for input that is invalid, and for a cache folder that cannot be written; RunFailed for a full disk.
    """
    folder = Path(config.cache).expanduser() / "tokens" / (config.store or key_of(config))
    check_room("data.cache", folder)
    store = find_store(folder, say)
    if config.store and (store is None or different(store, config) != []):
        check_text(config, folder, store)
    if store:
        logger.debug(f"token store: {folder}")
        return store
    from posexp.data.build_store import build_store

    try:
        with locked(folder, say):
            # Another process may have built the store while this one waited.
            if store := find_store(folder, lambda line: None):
                return store
            build_store(config, folder, say)
        return Store(folder)
    except OSError as error:
        raise cache_error(folder.parent, error) from error
    except DamageError as error:
        raise RunFailed(f"the token store {folder} was damaged while it was built: {error}") from error


def check_text(config: DataConfig, folder: Path, store: Store | None) -> None:
    """Raise Misuse unless the local text gives the store that data.store names."""
    try:
        key = key_of(config)
        found = f"the local text gives {key}"
    except Misuse as error:
        key, found = None, f"it cannot be built here: {error}"
    if key == config.store:
        return
    if store is None:
        raise Misuse(f"no token store {folder}, and {found}")
    options = different(store, config)
    if options is None:
        raise Misuse(f"the token store {folder} is too old to record its options, and {found}")
    raise Misuse(f"the token store {folder} was built with another {', '.join(options)}")


def find_store(folder: Path, say: Say) -> Store | None:
    """Return the store in `folder`, or None if it is missing or damaged; `say` prints the damage."""
    if not folder.is_dir():
        return None
    try:
        return Store(folder)
    except DamageError as error:
        say(f"the token store {folder} is damaged ({error}): building a new one")
        return None


def cache_error(folder: Path, error: OSError) -> PosexpError:
    text = f"cannot write the token store in {folder}: {error.strerror or error}"
    wrong_place = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
    if error.errno in wrong_place | locks.NO_LOCKS:  # `datasets` needs locks
        return Misuse(f"{text}; choose another folder with data.cache")
    return RunFailed(text)


@contextmanager
def locked(folder: Path, say: Say) -> Iterator[None]:
    """Hold the lock for building `folder`, after waiting for any other process that has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = Path(f"{folder}.lock"), Path(f"{folder}.holder.json")
    with locks.hold(lock, holder, lambda who: say(f"waiting for {who}, which is building this token store")):
        yield
