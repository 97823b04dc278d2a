"""The measurements of posexp bench as they are stored: a JSON file for each contender and device."""

from pathlib import Path
from typing import Any

from posexp.config.components import lean
from posexp.config.sections import ModelConfig
from posexp.config.values import flat, plain_value
from posexp.errors import Misuse
from posexp.storage import untrusted

PARTS = ("scheme", "window", "temperature", "mixer")
# Of a measurement: the fields that others read, each a number or null if it was not measured.
FIGURES = ("tokens_per_second", "ratio_to_none", "ratio_error", "peak_memory", "memory_to_none")
Record = dict[str, Any]  # of one file


def components_of(config: Any) -> dict[str, Any]:
    """Return the parts of a run or a contender as plain values, equal for equal models."""
    return {part: lean(plain_value(getattr(config, part))) for part in PARTS}


def sizes_of(model: ModelConfig, vocab_size: int, batch: int, length: int) -> dict[str, Any]:
    """Return the settings that two measurements must share, by their keys in a record."""
    return {**flat({"model": plain_value(model)}), "vocab_size": vocab_size, "batch": batch, "length": length}


def differing(record: Record, wanted: dict[str, Any]) -> list[str]:
    """Return what differs, as in "batch=64 (here 8)". A setting newer than the record has its default there."""
    otherwise = flat({"model": plain_value(ModelConfig())})
    settings = {key: record["settings"].get(key, otherwise.get(key)) for key in wanted}
    return [f"{key}={settings[key]} (here {value})" for key, value in wanted.items() if settings[key] != value]


def read_records(place: Path) -> list[Record]:
    """Return the records of a folder of results/bench or of one file in it.

    Raises Misuse if `place` is missing, or has a file that is not a record.
    """
    paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not paths:
        raise Misuse(f"{place} has no measurement of posexp bench: name a folder of results/bench with JSON files")
    found = []
    for path in paths:
        try:
            found.append(valid_record(untrusted.object_of(untrusted.read_bytes(path))))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or error
            raise Misuse(f"{path} is not a measurement that posexp bench has written: {str(why)[:150]}") from error
    return found


def valid_record(record: Record) -> Record:
    """Return `record`. Raises ValueError unless it has the fields that are read, each of its type."""
    for key, kind in {"contender": str, "kind": str, "device": str, "settings": dict, "measurements": list}.items():
        if not isinstance(record.get(key), kind):
            raise ValueError(f"it has no {key}")
    for row in record["measurements"]:
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("what", "status")):
            raise ValueError("a measurement has no status")
        if not untrusted.is_count(row.get("length")):
            raise ValueError("a measurement has no length")
        for key in FIGURES:
            if row.setdefault(key, None) is not None and not untrusted.is_amount(row[key]):
                raise ValueError(f"{key} of a measurement is not a number")
    return record
