"""The reach of a text: the length up to which all lengths are measured on one set of targets.

A longer length is scored on a far set, which belongs to the next power of two, together with the shorter requested
lengths. All sets depend on the text alone, so two commands that request the same length measure the same targets.
"""

import numpy as np

from posexp.data.store import Tokens
from posexp.evaluation.spans import blocks, power_below, scored

MIN_DOCUMENTS = 16  # so that an interval over documents can be computed
MIN_TARGETS = 4096
MOST_REACH = 32_768  # a longer reach would cost documents and targets for lengths that are rarely measured
FRAME = 8192  # the same bound for running text, which is read in full at every length


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
