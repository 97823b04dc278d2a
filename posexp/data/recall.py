"""The track recall: dense associative recall, in which every key is asked again and again.

A document is a sequence of pairs of a key and its value, which stays the same within the document. The value of a key
that occurred before is known to a model that reads the earlier pair, and uniform to one that does not. This is the task
of Arora et al. 2023 (MQAR, arXiv 2312.04927), with questions throughout and their distances drawn by intent.

Shape suffixes: N tokens of a split, M targets, D documents, K keys.
"""

import numpy as np

VALUES = 8  # different values; the other symbols are keys
FARTHEST = 256  # pairs from a key to its last occurrence, at most: 512 tokens
LEAST_SYMBOLS = 64  # so that there are keys for distances of 46 pairs, the mean


def draw_recall(random: np.random.Generator, symbols: int, documents: int, size: int) -> np.ndarray:
    """Draw documents of pairs: keys are 0 … symbols - VALUES - 1, values are the symbols after them.

    For each pair a distance is drawn log-uniformly from 1 to FARTHEST pairs. The pair repeats the key whose last
    occurrence is the nearest at that distance or beyond. Without one it has a new key, or at last the farthest.
    Returns int64 [documents, size].
    """
    keys, pairs = symbols - VALUES, -(-size // 2)
    new_DK = random.random((documents, keys)).argsort(axis=1)  # the order in which keys occur first
    value_DK = keys + np.minimum(random.random((documents, keys)) * VALUES, VALUES - 1).astype(np.int64)
    distance_TD = np.exp(random.random((pairs, documents)) * np.log(FARTHEST + 1)).astype(np.int32)
    last_DK = np.full((documents, keys), -2 * size, dtype=np.int32)  # by order of first occurrence
    ids_DT = np.empty((documents, 2 * pairs), dtype=np.int64)
    document_D = np.arange(documents)
    for t in range(pairs):
        far_DK = np.where(last_DK <= (t - distance_TD[t])[:, None], last_DK, -4 * size)
        chosen_D = far_DK.argmax(axis=1)  # new keys are further than all others
        none_D = far_DK[document_D, chosen_D] == -4 * size
        chosen_D[none_D] = last_DK[none_D].argmin(axis=1)
        last_DK[document_D, chosen_D] = t
        ids_DT[:, 2 * t] = new_DK[document_D, chosen_D]
        ids_DT[:, 2 * t + 1] = value_DK[document_D, ids_DT[:, 2 * t]]
    return ids_DT[:, :size]


def recall_distance(ids_N: np.ndarray, start_M: np.ndarray, target_M: np.ndarray, symbols: int) -> np.ndarray:
    """Return the tokens from the last occurrence of a value's key to the value, int64 [M].

    It is 0 for keys, and for values whose key does not occur between the document's beginning at offset `start_M` and
    the pair. A model knows the value exactly if it reads that many tokens.
    """
    keys = symbols - VALUES
    code_N = np.flatnonzero(ids_N < keys)  # offsets of keys, ordered by key and then by offset
    code_N = np.sort(ids_N[code_N].astype(np.int64) * len(ids_N) + code_N)
    key_M = target_M - 1
    own_M = ids_N[key_M].astype(np.int64) * len(ids_N) + key_M
    before_M = code_N[np.maximum(code_N.searchsorted(own_M) - 1, 0)]
    known_M = (before_M < own_M) & (before_M // len(ids_N) == ids_N[key_M])
    distance_M = target_M - before_M % len(ids_N)
    asked_M = known_M & (ids_N[target_M] >= keys) & (key_M >= start_M) & (target_M - distance_M >= start_M)
    return np.where(asked_M, distance_M, 0)


def recall_optimum(ids_N: np.ndarray, start_M: np.ndarray, target_M: np.ndarray, symbols: int) -> np.ndarray:
    """Return the best loss of values: 0 if the text from `start_M` on has the pair already, else log(VALUES).

    The best loss of keys is not computed: it is NaN. What a first value tells whose key is not read is not used.
    """
    known_M = recall_distance(ids_N, start_M, target_M, symbols) > 0
    return np.where(ids_N[target_M] < symbols - VALUES, np.nan, np.where(known_M, 0.0, np.log(VALUES)))
