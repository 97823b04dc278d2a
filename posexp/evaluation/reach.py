"""Which lengths are measured on one set of targets: a property of the text, whatever lengths a command asks for.

Up to the reach of a text, all lengths score the same targets. A longer length is scored on a far set, which belongs to
the next power of two, together with the shorter lengths that were asked for. All of these sets follow from the text
alone, so that two commands that ask for the same length measure the same thing.
"""

import numpy as np

from posexp.data.store import Tokens
from posexp.evaluation.protocols import blocks, power_below, scored

MIN_DOCUMENTS = 16  # so that an interval over documents can be computed
MIN_TARGETS = 4096
MOST_REACH = 32_768  # beyond it, texts of long documents would give up documents and targets for lengths nobody asks
FRAME = 8192  # likewise for running text, all of which is read again at every length


def reach(tokens: Tokens) -> int:
    """The longest length that shares its targets with all shorter ones under same_targets: the largest power of two
    for which enough documents hold a block of targets behind so many tokens, and hold enough targets together.

    Enough are MIN_DOCUMENTS documents, or three quarters of them where they are fewer; and MIN_TARGETS targets, or an
    eighth of the split's tokens. 0 where even one token before a target is too much.
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
    """The same for protocols that read the split as one text: FRAME, or half of a shorter split."""
    return min(FRAME, power_below((len(tokens.ids) - 1) // 2))


def head_reach(tokens: Tokens) -> int:
    """The same for protocols that read the beginnings of documents."""
    return min(FRAME, reach(tokens))


def target_sets(lengths: list[int], reached: int, moving: bool) -> list[tuple[int, list[int]]]:
    """(longest length, its lengths) of every set of targets that `lengths` are measured on, the set within reach first.

    Where each length scores targets of its own (`moving`), shorter lengths need not be measured beside longer ones.
    """
    sets = {reached: [n for n in lengths if n <= reached]}
    for longest in sorted({1 << (n - 1).bit_length() for n in lengths if n > reached}):
        sets[longest] = [n for n in lengths if n <= longest and (not moving or n > max(reached, longest // 2))]
    return [(longest, of_set) for longest, of_set in sets.items() if of_set]
