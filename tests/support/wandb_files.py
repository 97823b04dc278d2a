"""The records of an offline run of wandb, with wandb's own protobuf messages.

`python tests/support/wandb_files.py <folder of an offline run>` lists its keys.
"""

import json
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 32768  # the file is a header of 7 bytes, then LevelDB's log format


@dataclass
class WandbRun:
    """about: the run as wandb knows it. axes: the step metric by glob. summary and config: by key."""

    about: Any
    config: dict[str, Any]
    axes: dict[str, str]
    history: list[dict[str, Any]]
    summary: dict[str, Any]


def records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        size, part = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def kind(record: Any) -> str:
    return record.WhichOneof("record_type")


def items(found: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in found}


def read_run(folder: Path) -> WandbRun:
    """Read wandb/offline-run-…, whose file wandb's own process may write for a moment longer."""
    found: list[Any] = []
    for _ in range(200):
        found = [record for path in folder.glob("*.wandb") for record in records(path)]
        if found and kind(found[-1]) == "exit":
            break
        time.sleep(0.1)
    (about,) = [record.run for record in found if kind(record) == "run"]
    summary: dict[str, Any] = items(about.summary.update)
    for record in found:
        if kind(record) == "summary":
            summary |= items(record.summary.update)
    metrics = [record.metric for record in found if kind(record) == "metric"]
    return WandbRun(
        about,
        items(about.config.update),
        {metric.glob_name: metric.step_metric for metric in metrics if metric.glob_name},
        [items(record.history.item) for record in found if kind(record) == "history"],
        summary,
    )


def only_run(folder: Path) -> WandbRun:
    """Read the only offline run of the run in `folder`."""
    (found,) = folder.glob("wandb/offline-run-*")
    return read_run(found)


if __name__ == "__main__":
    run = read_run(Path(sys.argv[1]))
    print("run", run.about.display_name, "id", run.about.run_id, "group", run.about.run_group)
    print("job_type", run.about.job_type, "tags", list(run.about.tags), "notes", repr(run.about.notes))
    print("config", *sorted(run.config))
    print("provenance", *sorted(run.config.get("provenance", {})))
    print("axes", *(f"{name} by {axis}" for name, axis in run.axes.items()))
    print("history", *sorted({key for line in run.history for key in line if key[0] != "_"}), sep="\n  ")
    print("summary", *sorted(f"{key} = {value}" for key, value in run.summary.items() if key[0] != "_"), sep="\n  ")
