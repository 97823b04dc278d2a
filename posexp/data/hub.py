"""Documents from a dataset of the Hugging Face hub, or from a local folder laid out like one."""

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
    """The folder, if `data.dataset` names one instead of a repository."""
    path = Path(config.dataset).expanduser()
    return path if path.is_dir() else None


def hub_content(config: DataConfig) -> list[str]:
    """What names the dataset without a network: its id, or the contents of a local folder. Raises Misuse for neither.

    A branch such as main may move on the hub: the store then stays what it was when built; name a commit to be exact.
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
    """The dataset's splits, each with the column `text`, and the fingerprint of what was loaded.

    Raises Misuse if the hub cannot be reached and no copy is at hand, or if there is no such dataset, split or column.
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
    """The splits that `datasets` finds in a folder of JSON or parquet, of which only the wanted field is read; none of
    other files."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(folder), config.subset or None, cache_dir=str(cache))
    except Exception:  # `fetch` says why
        return {}
    found = {str(split): [Path(path) for path in paths] for split, paths in (builder.config.data_files or {}).items()}
    if any(files.kind(path) not in {"json", "parquet"} for paths in found.values() for path in paths):
        return {}
    return {
        split: datasets.concatenate_datasets([rows for rows, _ in files.read_files(paths, config.field, cache)])
        for split, paths in found.items()
    }


def text_column(rows: Any, field: str, name: str) -> Any:
    """`rows` with the column `field` alone, as `text`.

    Raises Misuse, with `name`, if the column or the text of a row is missing.
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
    if dtype != "string":  # one type for all, so that they can be joined
        column = column.cast_column("text", datasets.Value("string"))
    for index, length in enumerate(text_lengths(column)):
        if length is None:
            raise Misuse(f"{name}: row {index + 1} has no text in the field {field!r}: it is null or missing")
    try:
        for batch in column.with_format("arrow").iter(batch_size=batch_rows(column)):
            batch.validate(full=True)
    except pyarrow.ArrowInvalid as error:  # neither reader checks that strings are UTF-8
        raise Misuse(f"{name} is not UTF-8: {datasets_reason(error)}") from error
    return column


def fetch(config: DataConfig, cache: Path) -> Any:
    """The DatasetDict of all splits."""
    import datasets

    folder = local_folder(config)
    if folder is not None:
        try:
            return datasets.load_dataset(str(folder), config.subset or None, cache_dir=str(cache))
        except Exception as error:  # datasets raises whatever a builder raised
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
    """Whether the hub may be asked (HF_HUB_OFFLINE=1 forbids it) and answers within seconds."""
    import datasets

    return not datasets.config.HF_HUB_OFFLINE and reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


@contextmanager
def offline(wanted: bool) -> Iterator[None]:
    """Makes `datasets` use only what is already on this machine, inside the block."""
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
