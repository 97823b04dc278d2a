"""The documents of one split, as pieces of arrays on disk, and the documents held out for validation and test.

An array holds UTF-8 bytes of text or token ids.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posexp.config.sections import Split

STRATUM = 20  # documents of similar length
HELD_OUT = {Split.valid: 1, Split.test: 1}  # documents of each stratum: 5 % each


@dataclass(frozen=True)
class Documents:
    """The documents of one split. places: int64 [D, 3], the array, start and end of each document.

    is_text: the arrays hold UTF-8 bytes, not token ids.
    """

    arrays: list[np.ndarray]
    places: np.ndarray
    is_text: bool

    def __len__(self) -> int:
        return len(self.places)

    @property
    def size(self) -> int:
        """The bytes of all texts, or the number of ids."""
        return int((self.places[:, 2] - self.places[:, 1]).sum())

    def __iter__(self) -> Iterator[np.ndarray]:
        for place, first, last in self.places:
            yield self.arrays[place][first:last]

    def texts(self) -> Iterator[str]:
        for data in self:
            yield str(data.data, "utf-8")


def between(arrays: list[np.ndarray], bounds: list[np.ndarray], is_text: bool) -> Documents:
    """Return the documents of each array that lie between successive bounds, without empty ones."""
    places = [
        np.stack([np.full(len(ends) - 1, index), ends[:-1], ends[1:]], axis=1)[np.diff(ends) > 0]
        for index, ends in enumerate(bounds)
    ]
    return Documents(arrays, np.concatenate(places).astype(np.int64), is_text)


def write_texts(texts: Iterable[str], path: Path) -> Documents:
    """Write the texts to a new file, one after another; return them as documents."""
    ends = array("q", [0])
    with open(path, "wb") as file:
        for text in texts:
            ends.append(ends[-1] + file.write(text.encode()))
    data = np.memmap(path, np.uint8, "r") if ends[-1] else np.empty(0, np.uint8)
    return between([np.asarray(data)], [np.array(ends)], True)


def hold_out(
    splits: dict[Split, Documents], note: Callable[[str], None], held_out: dict[Split, int] = HELD_OUT
) -> dict[Split, Documents]:
    """Return `splits`; unless valid exists, take the missing valid and test splits from the training documents.

    The choice depends on the documents alone, not on their order or file names. Documents are sorted by length into
    strata, and each stratum gives its documents of lowest sha256, `held_out` for each split. So every split has long
    documents. Equal documents go to the same split.
    """
    if Split.valid in splits:
        return splits
    train = splits[Split.train]
    missing = [split for split in (Split.valid, Split.test) if split not in splits]
    hashes = [hashlib.sha256(data.data).hexdigest() for data in train]
    lengths = dict(zip(hashes, map(len, train), strict=True))
    if len(lengths) < 3:
        names = " and for ".join(split.value for split in missing)
        note(f"documents are too few ({len(train)}) to hold out whole ones: 5 % of each text is kept for {names}")
        return splits | cut(train, missing)
    ranked = sorted(lengths, key=lambda name: (-lengths[name], name))
    homes = [split for split in missing for _ in range(held_out[split])]
    home: dict[str, Split] = {}
    for first in range(0, max(1, len(ranked) // STRATUM) * STRATUM, STRATUM):
        home.update(zip(sorted(ranked[first : first + STRATUM]), homes, strict=False))
    places: dict[Split, list[int]] = {split: [] for split in (Split.train, *missing)}
    for index, name in enumerate(hashes):
        places[home.get(name, Split.train)].append(index)
    return splits | {split: replace(train, places=train.places[chosen]) for split, chosen in places.items()}


def cut(documents: Documents, missing: list[Split]) -> dict[Split, Documents]:
    """Take the last 5 % of each document for each missing split, the rest for training."""
    names = (Split.train, *missing)
    shares = range(20 - len(missing), 21)
    pieces: dict[Split, list[tuple[int, int, int]]] = {split: [] for split in names}
    for (place, start, _), data in zip(documents.places.tolist(), documents, strict=True):
        if documents.is_text:  # cut between two characters
            text = str(data.data, "utf-8")
            ends = [start + len(text[: len(text) * share // 20].encode()) for share in shares]
        else:
            ends = [start + len(data) * share // 20 for share in shares]
        for split, first, last in zip(names, [start, *ends], ends, strict=False):
            if first < last:
                pieces[split].append((place, first, last))
    return {split: replace(documents, places=np.array(kept)) for split, kept in pieces.items() if kept}
