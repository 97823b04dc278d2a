"""The differences between the losses of two rows, paired by target.

Shape suffixes: N targets, S seeds, D documents.
"""

from collections.abc import Sequence

import numpy as np

from posexp.errors import Misuse
from posexp.evaluation.losses import Losses


def differences(pairs: Sequence[tuple[Losses, Losses]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over each document of the first loss less the second (float64 [S, D]) and the counts of targets
    (float64 [D]).

    There is one pair per seed. Raises Misuse unless all rows score the same targets.
    """
    first = in_order(pairs[0][0])
    document_D, index_N, count_D = np.unique(first.document, return_inverse=True, return_counts=True)
    sums = []
    for pair in pairs:
        one, other = map(in_order, pair)
        for losses in (one, other):
            if losses.target is not first.target and not np.array_equal(losses.target, first.target):
                raise Misuse("their targets differ, so they cannot be paired")
        difference_N = one.nll.astype(np.float64) - other.nll.astype(np.float64)
        sums.append(np.bincount(index_N, weights=difference_N, minlength=len(document_D)))
    return np.stack(sums), count_D.astype(np.float64)


def in_order(losses: Losses) -> Losses:
    """Return the losses sorted by target, and by context where a target is scored several times."""
    if (losses.target[1:] > losses.target[:-1]).all():
        return losses
    order = np.lexsort((losses.context, losses.target))
    return Losses(**{name: values[order] for name, values in vars(losses).items()})
