"""The documents of a dataset on the Hugging Face hub, or of a local folder with the same layout."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posexp.config.sections import DataConfig, Split
from posexp.data import files
from posexp.data.quiet import datasets_reason, raise_disk_error
from posexp.data.readers import batch_rows, text_lengths
from posexp.errors import Misuse
from posexp.storage.network import reachable

NAMES = {Split.train: ["train"], Split.valid: ["validation", "valid", "val", "dev"], Split.test: ["test"]}


def local_folder(config: DataConfig) -> Path | None:
    """Return the folder that `data.dataset` names, or None if it names a repository."""
    path = Path(config.dataset).expanduser()
    return path if path.is_dir() else None


def hub_content(config: DataConfig) -> list[str]:
    """Return what identifies the dataset without a network: its id, or a hash of a local folder.

    A branch such as main may move on the hub, which does not change a store that is built; name a commit to be exact.
    Raises Misuse if data.dataset is empty.
    """
    if not config.dataset:
        raise Misuse("data=hub needs data.dataset=<repository id>, as in data.dataset=Salesforce/wikitext")
    folder = local_folder(config)
    if folder is None:
        return [config.dataset, config.subset, config.revision]
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {files.file_digest(path)}\n".encode())
    return ["folder", config.subset, digest.hexdigest()]


def read_hub(config: DataConfig, cache: Path) -> tuple[dict[Split, Any], str]:
    """Return the dataset's splits, each with the column `text`, and the fingerprint of the loaded data.

    Raises Misuse if the hub cannot be reached and no copy is cached, or if there is no such dataset, split or column.
    """
    folder = local_folder(config)
    own = read_folder(config, folder, cache) if folder else {}
    found = own or fetch(config, cache)
    splits = {}
    for split, names in NAMES.items():
        if name := next((name for name in names if name in found), None):
            field = "text" if own else config.field
            splits[split] = text_column(found[name], field, f"{config.dataset} ({name})")
    if Split.train not in splits:
        raise Misuse(f"{config.dataset} has no split named train; its splits: {', '.join(found)}")
    return splits, " ".join(f"{name}:{rows._fingerprint}" for name, rows in found.items())


def read_folder(config: DataConfig, folder: Path, cache: Path) -> dict[str, Any]:
    """Return the splits that `datasets` finds in a folder of JSON or parquet, with only data.field loaded.

    Returns no splits for a folder of other files.
    """
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(folder), config.subset or None, cache_dir=str(cache))
    except Exception:  # `fetch` raises the reason
        return {}
    found = {str(split): [Path(path) for path in paths] for split, paths in (builder.config.data_files or {}).items()}
    if any(files.kind(path) not in {"json", "parquet"} for paths in found.values() for path in paths):
        return {}
    return {
        split: datasets.concatenate_datasets([rows for rows, _ in files.read_files(paths, config.field, cache)])
        for split, paths in found.items()
    }


def text_column(rows: Any, field: str, name: str) -> Any:
    """Return the column `field` of `rows` as `text`.

    Raises Misuse that starts with `name` if the column, or the text of a row, is missing or invalid.
    """
    import datasets
    import pyarrow

    if field not in rows.column_names:
        raise Misuse(
            f"{name} has no field {field!r}; its fields: {', '.join(rows.column_names)} (choose with data.field)"
        )
    column = rows.select_columns([field])
    if field != "text":
        column = column.rename_column(field, "text")
    dtype = getattr(column.features["text"], "dtype", "nested")
    if dtype not in {"string", "large_string", "string_view"}:
        raise Misuse(f"{name}: the field {field!r} is {dtype}, not text")
    if dtype != "string":  # concatenation needs equal types
        column = column.cast_column("text", datasets.Value("string"))
    for index, length in enumerate(text_lengths(column)):
        if length is None:
            raise Misuse(f"{name}: row {index + 1} has no text in the field {field!r}: it is null or missing")
    try:
        for batch in column.with_format("arrow").iter(batch_size=batch_rows(column)):
            batch.validate(full=True)
    except pyarrow.ArrowInvalid as error:  # the readers do not check that strings are UTF-8
        raise Misuse(f"{name} is not UTF-8: {datasets_reason(error)}") from error
    return column


def fetch(config: DataConfig, cache: Path) -> Any:
    """Load the DatasetDict of all splits. Raises Misuse if it cannot be loaded."""
    import datasets

    folder = local_folder(config)
    if folder is not None:
        try:
            return datasets.load_dataset(str(folder), config.subset or None, cache_dir=str(cache))
        except Exception as error:  # datasets passes on any error of a builder
            raise Misuse(f"cannot read the dataset in {folder}: {datasets_reason(error)}") from error
    reachable = can_reach_hub()
    try:
        with offline(not reachable):
            return datasets.load_dataset(config.dataset, config.subset or None, revision=config.revision)
    except ConnectionError as error:
        raise Misuse(
            f"cannot reach the Hugging Face hub for {config.dataset!r}: no network? use data=stdlib or data=files "
            "data.paths=…, or bring its token store from a machine with internet (scripts/bundle)"
        ) from error
    except Exception as error:
        raise_disk_error(error)
        raise Misuse(f"cannot load data.dataset={config.dataset}: {datasets_reason(error)}") from error


def can_reach_hub() -> bool:
    """Return whether the hub answers within seconds; always False under HF_HUB_OFFLINE=1."""
    import datasets

    return not datasets.config.HF_HUB_OFFLINE and reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


@contextmanager
def offline(wanted: bool) -> Iterator[None]:
    """Make `datasets` use only its local cache inside the block, if `wanted`."""
    import datasets
    import huggingface_hub.constants

    # Both libraries read HF_HUB_OFFLINE from the environment once, when imported.
    homes = [datasets.config, huggingface_hub.constants]
    before = [home.HF_HUB_OFFLINE for home in homes]
    try:
        for home, value in zip(homes, before, strict=True):
            home.HF_HUB_OFFLINE = wanted or value
        yield
    finally:
        for home, value in zip(homes, before, strict=True):
            home.HF_HUB_OFFLINE = value
