"""The differences between the losses of two rows, paired by document.

Shape suffixes: S seeds, D documents.
"""

from collections.abc import Sequence

import numpy as np

from posexp.errors import Misuse
from posexp.evaluation.rows import Row


def differences(pairs: Sequence[tuple[Row, Row]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over each document of the first row's losses less the second's (float64 [S, D]) and the counts of
    targets (float64 [D]).

    There is one pair per seed. Both rows of a pair score the same targets, so that sums over a document are paired by
    target. Raises Misuse if sums are missing or targets differ.
    """
    first = pairs[0][0].sums
    sums = []
    for pair in pairs:
        one, other = (row.sums for row in pair)
        if first is None or one is None or other is None:
            row = next(row for row in pair if row.sums is None) if one and first else pairs[0][0]
            raise Misuse(
                f"the losses of {row.run} by document are missing: repeat the eval command, which measures them"
            )
        for found in (one, other):
            same = np.array_equal(found.documents, first.documents) and np.array_equal(found.counts, first.counts)
            if not same:
                raise Misuse("their targets differ, so they cannot be paired")
        if len({pair[0].targets_hash, pair[1].targets_hash, pairs[0][0].targets_hash}) > 1:
            raise Misuse("their targets differ, so they cannot be paired")
        sums.append(one.sums - other.sums)
    assert first is not None
    return np.stack(sums), first.counts
