"""The training times of a track's curves, from the bench that it names."""

from pathlib import Path
from typing import Any

from posexp.config.sections import ModelConfig
from posexp.errors import Misuse
from posexp.leaderboard.track import Track
from posexp.report.bench_records import differing, read_records, sizes_of

Speed = tuple[float, float]  # relative to `none`, and the standard error relative to that


def bench_speeds(track: Track, benches: Path) -> list[tuple[dict[str, Any], Speed]]:
    """Return the components of each curve with its training speed.

    Raises Misuse if the bench is missing or damaged, or was not measured at the track's sizes.
    """
    place = benches / str(track.timed)
    batch = int(track.fixed["train.batch_tokens"]) // track.length
    wanted = sizes_of(ModelConfig(), int(track.fixed["data.vocab_size"]), batch, track.length)
    wanted |= {key: value for key, value in track.fixed.items() if key.startswith("model.")}
    records = read_records(place)
    for record in records:
        if others := differing(record, wanted):
            raise Misuse(f"{place} was not measured at the sizes of {track.name}: {', '.join(others[:6])}")
    return [
        (record.get("components") or {}, (row["ratio_to_none"], row["ratio_error"] or 0.0))
        for record in records
        for row in record["measurements"]
        if row["what"] == "training" and row["ratio_to_none"]
    ]
