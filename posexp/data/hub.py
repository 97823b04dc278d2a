"""The documents of a dataset on the Hugging Face hub, or of a local folder with the same layout, read by `datasets`."""

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from posexp.config.sections import DataConfig, Split
from posexp.data import files
from posexp.data.readers import cause_line, complaint, text_of
from posexp.errors import Misuse
from posexp.storage.locks import NO_LOCKS
from posexp.storage.network import reachable

NAMES = {Split.train: ["train"], Split.valid: ["validation", "valid", "val", "dev"], Split.test: ["test"]}
# Codes of an OSError about the folder that `datasets` writes to, not about its input.
UNUSABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS} | NO_LOCKS
BATCH = 100  # rows; books have a million characters


def hub_content(config: DataConfig) -> list[str]:
    """Return what identifies the dataset without a network: its id, or a hash of a local folder.

    A branch such as main may move on the hub, which does not change a store that is built; name a commit to be exact.
    Raises Misuse if data.dataset is empty.
    """
    if not config.dataset:
        raise Misuse("data=hub needs data.dataset=<repository id>, as in data.dataset=Salesforce/wikitext")
    folder = Path(config.dataset).expanduser()
    if not folder.is_dir():
        return [config.dataset, config.subset, config.revision]
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {files.file_digest(path)}\n".encode())
    return ["folder", config.subset, digest.hexdigest()]


def read_hub(config: DataConfig, cache: Path) -> tuple[dict[Split, Iterator[str]], str]:
    """Return the texts of the dataset's splits, and the fingerprint of the loaded data."""
    with quiet():
        found = fetch_dataset(config, cache)
    splits = {}
    for split, names in NAMES.items():
        if name := next((name for name in names if name in found), None):
            splits[split] = texts_of(found[name], config.field, f"{config.dataset} ({name})")
    if Split.train not in splits:
        raise Misuse(f"{config.dataset} has no split named train; its splits: {', '.join(found)}")
    return splits, " ".join(f"{name}:{rows._fingerprint}" for name, rows in found.items())


def texts_of(rows: Any, field: str, name: str) -> Iterator[str]:
    """Yield the column `field`. Raises Misuse that starts with `name` if the column or a text is missing or invalid."""
    if field not in rows.column_names:
        text_of(dict.fromkeys(rows.column_names), field, name)  # raises
    number = 0
    for batch in rows.select_columns([field]).with_format("arrow").iter(batch_size=BATCH):
        try:
            values = batch.column(0).to_pylist()
        except UnicodeDecodeError as error:  # the readers of `datasets` do not check that strings are UTF-8
            raise Misuse(f"{name} {complaint(error, '')}") from error
        for value in values:
            number += 1
            yield text_of({field: value}, field, f"{name}: row {number}")


def fetch_dataset(config: DataConfig, cache: Path) -> Any:
    """Load the DatasetDict of all splits. Raises Misuse if it cannot be loaded."""
    from unittest.mock import patch  # imports asyncio

    import datasets
    import huggingface_hub.constants

    folder = Path(config.dataset).expanduser()
    if folder.is_dir():
        with explained(f"cannot read the dataset in {folder}", unreachable(config)):
            return datasets.load_dataset(str(folder), config.subset or None, cache_dir=str(cache))
    away = not can_reach_hub()
    with ExitStack() as changed, explained(f"cannot load data.dataset={config.dataset}", unreachable(config)):
        # Both libraries read HF_HUB_OFFLINE from the environment once, when imported.
        for home in (datasets.config, huggingface_hub.constants) if away else ():
            changed.enter_context(patch.object(home, "HF_HUB_OFFLINE", True))
        return datasets.load_dataset(config.dataset, config.subset or None, revision=config.revision)


def fetch_files(config: DataConfig, patterns: list[str] | tuple[str, ...]) -> Path:
    """Return a local folder with the files of the dataset's repository that match `patterns`."""
    from huggingface_hub import snapshot_download

    how: dict[str, Any] = {"repo_type": "dataset", "revision": config.revision, "allow_patterns": list(patterns)}
    with explained(f"cannot load data.dataset={config.dataset}", unreachable(config)):
        return Path(snapshot_download(config.dataset, local_files_only=not can_reach_hub(), **how))


@contextmanager
def explained(what: str, missing: str) -> Iterator[None]:
    """Raise Misuse for an error of the hub's libraries in the block: `missing` without a network, else `what` and why.

    Raises OSError if `datasets` cannot write its files.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except (ConnectionError, LocalEntryNotFoundError) as error:
        raise Misuse(missing) from error
    except Exception as error:  # the libraries pass on any error of a builder
        raise_disk_error(error)
        raise Misuse(f"{what}: {cause_line(error)}") from error


def unreachable(config: DataConfig) -> str:
    return (
        f"cannot reach the Hugging Face hub for {config.dataset!r}: no network? use data=stdlib or data=files "
        "data.paths=…, or bring its token store from a machine with internet (scripts/bundle)"
    )


def raise_disk_error(error: BaseException) -> None:
    """Raise the OSError inside a wrapped `error` if it means that `datasets` cannot write its files."""
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    if isinstance(inner, OSError) and inner.errno in UNUSABLE:
        raise inner
    if isinstance(inner, OSError) and "Not enough disk space" in str(inner):  # raised by `datasets` before writing
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def can_reach_hub() -> bool:
    """Return whether the hub answers within seconds; always False under HF_HUB_OFFLINE=1."""
    import huggingface_hub.constants

    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    return not offline and reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence all logging and the bars of `datasets` inside the block.

    Also disable the download counter of `datasets`, which takes ten seconds where names cannot be resolved.
    """
    from unittest.mock import patch

    import datasets

    bars, level = datasets.is_progress_bar_enabled(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with patch.object(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False):
            yield
    finally:
        logging.disable(level)
        if bars:
            datasets.enable_progress_bars()
