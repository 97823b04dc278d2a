"""Targets whose answer was stated before, at a known distance: the values of data=recall, the names of data=entities.

In such texts same_targets and level score nothing else, and by_distance says how far back an answer may lie.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from posexp.config.sections import Split
from posexp.data import entities, tracks
from posexp.data.store import Store, Tokens
from posexp.errors import Misuse
from posexp.evaluation.probes import inside, ranges
from posexp.evaluation.targets import Measurement, Measurements, targets_of

BYTES = 256  # tokens of the tokenizer "bytes"


def by_distance(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Targets whose answer stands in the same input, by the tokens from where it was last stated.

    The row's `length` is the largest distance. Inputs are of the longest length and lie inside one document. Raises
    Misuse if the text has no such targets.
    """
    distance_N = distances(tokens)
    if distance_N is None:
        raise Misuse("by_distance needs text whose answers were stated before: choose data=recall or data=entities")
    windows_W3 = inside(tokens, longest, bound)
    target_M, context_M = targets_of(windows_W3)
    distance_M = distance_N[target_M]
    distance_M[distance_M > context_M] = 0
    if not distance_M.any():
        raise Misuse(f"nothing is asked again within {longest} tokens: by_distance has nothing to score")
    return ranges("by_distance", windows_W3, distance_M, longest)


def only_asked(measurement: Measurement, tokens: Tokens, farthest: int) -> Measurement:
    """Return the targets whose answer was stated at most `farthest` tokens before; other text is measured whole."""
    distance_N = distances(tokens)
    if distance_N is None:
        return measurement
    distance_M = distance_N[targets_of(measurement.windows)[0]]
    asked_M = ((distance_M > 0) & (distance_M <= farthest)).astype(np.int64)
    if not asked_M.any():
        raise Misuse(f"nothing is asked again within {farthest} tokens: set a larger eval.targets")
    return replace(measurement, by=asked_M, within=(0, 1))


def distances(tokens: Tokens) -> np.ndarray | None:
    """Return the distance of every token's answer, int64 [N], 0 for tokens that are not scored; None in other text."""
    if tokens.store is None or not tokens.sha256:
        return None
    return split_distances(tokens.store, tokens.sha256)


@lru_cache(maxsize=2)
def split_distances(store: Store, sha256: str) -> np.ndarray | None:
    """Return `distances` of the split whose file has the checksum `sha256`."""
    named = store.meta["choices"].get("names") and store.vocab_size == BYTES
    track = store.meta.get("track") or {}
    distance = tracks.TRACKS[track["name"]].distance if track else None
    if not named and distance is None:
        return None
    splits = (store.split(Split(name)) for name in store.meta["splits"])
    tokens = next(split for split in splits if split.sha256 == sha256)
    ids_N, target_N = np.asarray(tokens.ids), np.arange(len(tokens.ids))
    if distance is None:
        return entities.name_distance(ids_N, tokens.starts, target_N)
    begin_N = np.repeat(tokens.starts[:-1], np.diff(tokens.starts))
    return distance(ids_N, begin_N, target_N, track["symbols"])
