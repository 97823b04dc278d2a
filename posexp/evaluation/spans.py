"""The spans of protocols: cut from running text, or spread over documents, and how far a text reaches.

The reach of a text is the length up to which all lengths are measured on one set of targets. A longer length is scored
on a far set, which belongs to the next power of two, together with the shorter requested lengths. All sets depend on
the text alone, so two commands that request the same length measure the same targets.

L: the length being measured. Shape suffixes: W spans, M blocks or stretches, D documents.
"""

from dataclasses import replace

import numpy as np

from posexp.data.store import Tokens
from posexp.evaluation.targets import Measurement

MIN_STRETCHES = 12  # each of which is many windows at most lengths
MOST_SCORED = 128  # targets of a window under same_targets
MIN_DOCUMENTS = 16  # so that an interval over documents can be computed
MIN_TARGETS = 4096
MOST_REACH = 32_768  # a longer reach would cost documents and targets for lengths that are rarely measured
FRAME = 8192  # the same bound for running text, which is read in full at every length


class TooLong(Exception):
    """The text cannot give a set of targets. `possible` is the longest length of a set that it can, 0 or below for
    none."""

    def __init__(self, reason: str, possible: int):
        super().__init__(reason)
        self.possible = possible


def spread(tokens: Tokens, longest: int, block: int, bound: int | None) -> np.ndarray:
    """Return the first token of blocks of `block` targets behind `longest` tokens of their document, int64 [M].

    At most `bound` targets are taken, equally many from each document and evenly within it. Raises TooLong without any.
    """
    blocks_D = blocks(tokens, longest, block)
    if not blocks_D.any():
        size = int(np.diff(tokens.starts).max(initial=0))
        raise TooLong("no document is long enough", size - min(block, scored(power_below(size))))
    wanted = int(blocks_D.sum()) if bound is None else max(1, bound // block)
    firsts = []
    for document, count in enumerate(share_out(blocks_D, wanted)):
        begin = tokens.starts[document] + longest
        chosen = np.arange(count) * blocks_D[document] // max(count, 1)
        firsts.append(begin + chosen * block)
    return np.concatenate(firsts)


def finer(measurement: Measurement, most: int) -> Measurement:
    """Return the measurement with spans that score at most `most` targets, so that each has more context."""
    first_W, stop_W = measurement.windows[:, 1], measurement.windows[:, 2]
    each = int((stop_W - first_W)[0])
    if each <= most:
        return measurement
    first_W = (first_W[:, None] + np.arange(0, each, most)).ravel()
    windows_W3 = np.stack((first_W + most - 1 - measurement.length, first_W, first_W + most), axis=1)
    return replace(measurement, windows=windows_W3)


def scored(length: int) -> int:
    """Return the most targets of a window: a power of two, so that several short windows score those of a long one."""
    return min(MOST_SCORED, max(1, power_below(length // 16)))


def blocks(tokens: Tokens, longest: int, block: int) -> np.ndarray:
    """Return the number of blocks of targets that each document has behind its first `longest` tokens, int64 [D]."""
    return np.asarray(np.maximum(0, (np.diff(tokens.starts) - longest) // block))


def power_below(number: int) -> int:
    """The largest power of two that is not above `number`; 0 below 1."""
    return 1 << number.bit_length() - 1 if number > 0 else 0


def share_out(available_D: np.ndarray, wanted: int) -> np.ndarray:
    """Return the number that each document gives of `wanted`: equally many, as far as each has them."""
    taken_D = np.zeros_like(available_D)
    for behind, index in enumerate(np.argsort(available_D, kind="stable")):  # who has least takes first
        taken_D[index] = min(available_D[index], wanted // (len(available_D) - behind))
        wanted -= taken_D[index]
    return taken_D


def evenly(available: int, wanted: int) -> np.ndarray:
    """Indices of at most `wanted` of `available`, evenly spread."""
    count = min(available, wanted)
    return np.arange(count) * available // count


def stretches(tokens: Tokens, size: int, bound: int | None) -> np.ndarray:
    """[M, 2]: first input and end of inputs of stretches of `size` tokens, spread evenly; without bound, all in one."""
    total = len(tokens.ids) - 1
    check_stream(total, size)
    if bound is None:
        return np.array([[0, total]])
    begin_M = evenly(total // size, max(MIN_STRETCHES, bound // size)) * size
    return np.stack((begin_M, begin_M + size), axis=1)


def streamed(tokens: Tokens, longest: int, bound: int | None) -> int:
    """Return the number of targets from the split's beginning within `bound`, at least twice the longest length."""
    total = len(tokens.ids) - 1
    check_stream(total, longest)
    return total if bound is None else min(total, max(bound, 2 * longest))


def check_stream(total: int, longest: int) -> None:
    if total < longest:
        raise TooLong("the split is too short", total)


def cut(stretches_M2: np.ndarray, length: int) -> np.ndarray:
    windows = [
        (start, start + 1, min(start + length, end) + 1)
        for begin, end in stretches_M2.tolist()
        for start in range(begin, end, length)
    ]
    return np.array(windows, dtype=np.int64)


def slid(tokens: Tokens, longest: int, length: int, stride: int, bound: int | None) -> np.ndarray:
    targets = streamed(tokens, longest, bound)
    stops = [min(length, targets) + 1, *range(length + 1 + stride, targets + 1, stride)]
    if stops[-1] < targets + 1:
        stops.append(targets + 1)
    stop_W = np.array(stops)
    first_W = np.concatenate(([1], stop_W[:-1]))
    return np.stack((np.maximum(0, stop_W - 1 - length), first_W, stop_W), axis=1)


def reach(tokens: Tokens) -> int:
    """Return the longest length that shares its targets with all shorter ones under same_targets.

    The reach is the largest power of two for which enough documents hold a block of targets behind that many tokens,
    and hold enough targets together. Enough documents are MIN_DOCUMENTS, or three quarters of the split's documents if
    these are fewer. Enough targets are MIN_TARGETS, or an eighth of the split's tokens. The reach is 0 if no power of
    two qualifies.
    """
    documents = min(MIN_DOCUMENTS, -(-3 * (len(tokens.starts) - 1) // 4))
    targets = min(MIN_TARGETS, len(tokens.ids) // 8)
    longest = min(MOST_REACH, power_below(int(np.diff(tokens.starts).max(initial=0)) - 1))
    while longest:
        blocks_D = blocks(tokens, longest, scored(longest))
        if (blocks_D > 0).sum() >= documents and scored(longest) * blocks_D.sum() >= targets:
            break
        longest //= 2
    return longest


def stream_reach(tokens: Tokens) -> int:
    """Return the reach under protocols that read the split as one text: FRAME, or half of a shorter split."""
    return min(FRAME, power_below((len(tokens.ids) - 1) // 2))


def head_reach(tokens: Tokens) -> int:
    """Return the reach under protocols that read the beginnings of documents."""
    return min(FRAME, reach(tokens))


def target_sets(lengths: list[int], reached: int, moving: bool) -> list[tuple[int, list[int]]]:
    """Return (longest length, lengths) of each set of targets on which `lengths` are measured, the set in reach first.

    A far set omits the lengths of shorter sets if each length scores targets of its own (`moving`).
    """
    sets = {reached: [n for n in lengths if n <= reached]}
    for longest in sorted({1 << (n - 1).bit_length() for n in lengths if n > reached}):
        sets[longest] = [n for n in lengths if n <= longest and (not moving or n > max(reached, longest // 2))]
    return [(longest, of_set) for longest, of_set in sets.items() if of_set]
