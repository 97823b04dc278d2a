"""Text whose frequent names are drawn again in every segment, so that no name can be memorised in training.

The names of a document are its capitalised words of three letters or more inside sentences that occur nowhere in lower
case; the most frequent ones count. Inside a sentence means behind a space that follows a lower-case letter or a comma,
and without a full stop behind. A segment is a document of its own. Each of its names gets 4 to 6 random capitals, no
two the same first one. Other words of 4 to 6 capitals get one capital, so that nothing else looks like a name.

Shape suffixes: N tokens (bytes) of a split, M targets, W names in the text.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from string import ascii_uppercase

import numpy as np

from posexp.config.sections import Split

RULE = "names drawn in every segment, rule 1"  # part of a store's name: another rule needs another one
# Characters of a segment, which ends at the next space: in evaluation, names are constant over the longest lengths.
SEGMENT = {Split.train: 4096, Split.valid: 32_768, Split.test: 32_768}
SIZES = (4, 5, 6)  # letters of a drawn name
INSIDE = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b(?!\.)")
LOWER = re.compile(r"\b[a-z]{3,}\b")
CAPITALS = re.compile(r"(?<![A-Za-z])[A-Z]{4,6}(?![A-Za-z])")
DRAWN = re.compile(CAPITALS.pattern.encode())


def names_of(text: str, count: int) -> list[str]:
    """Return the `count` most frequent names of a text, the most frequent first and equal ones by alphabet."""
    lower = set(LOWER.findall(text))
    found = Counter(name for name in INSIDE.findall(text) if name.lower() not in lower)
    return sorted(found, key=lambda name: (-found[name], name))[:count]


def with_new_names(texts: Iterable[str], split: Split, count: int) -> Iterator[str]:
    """Yield the segments of each text, with new names in each. Equal texts give equal segments."""
    for text in texts:
        text = CAPITALS.sub(lambda word: word[0].capitalize(), text)
        names = names_of(text, count)
        pattern = re.compile(rf"\b(?:{'|'.join(names)})\b") if names else None
        digest = hashlib.sha256(text.encode()).hexdigest()
        for number, segment in enumerate(segments(text, SEGMENT[split])):
            drawn = draw_names(names, f"{split.value} {digest} {number}")
            yield renamed(segment, pattern, drawn) if pattern else segment


def renamed(segment: str, pattern: re.Pattern[str], drawn: dict[str, str]) -> str:
    return pattern.sub(lambda name: drawn[name[0]], segment)


def segments(text: str, size: int) -> Iterator[str]:
    """Yield pieces that end at the first gap behind `size` characters; a short rest is added to the last one."""
    first = 0
    while len(text) - first > 2 * size and (gap := re.compile(r"\s").search(text, first + size)):
        yield text[first : gap.end()]
        first = gap.end()
    yield text[first:]


def draw_names(names: list[str], seed: str) -> dict[str, str]:
    """Return a new name for each of at most 26 names."""
    draw = random.Random(seed)
    initials = draw.sample(ascii_uppercase, len(names))
    return {
        name: initial + "".join(draw.choices(ascii_uppercase, k=draw.choice(SIZES) - 1))
        for name, initial in zip(names, initials, strict=True)
    }


def name_distance(ids_N: np.ndarray, starts_D1: np.ndarray, target_M: np.ndarray) -> np.ndarray:
    """Return the bytes from the beginning of a name's last mention to the target, int64 [M].

    It is 0 for bytes outside names, for the first byte of a mention, and for a name's first mention in its document. A
    model that reads that many bytes has the byte in its input, behind the same ones.
    """
    text = ids_N.astype(np.uint8).tobytes()
    distance_N = np.zeros(len(ids_N), dtype=np.int64)
    last: dict[bytes, int] = {}
    found = [(match.start(), match[0]) for match in DRAWN.finditer(text)]
    document_W = np.searchsorted(starts_D1, [first for first, _ in found], side="right") - 1
    for (first, name), begin in zip(found, starts_D1[document_W].tolist(), strict=True):
        before = last.get(name, -1)
        if before >= begin:
            distance_N[first + 1 : first + len(name)] = np.arange(1, len(name)) + first - before
        last[name] = first
    return distance_N[target_M]
