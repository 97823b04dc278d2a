"""Protocols of tokens that can be copied from beyond the training length, and of matched tokens that cannot.

A model that copies expects, behind a token, what followed it before (induction heads: Olsson et al. 2022, arXiv
2209.11895). So a target can be copied if its bigram, the token before it and the target, has occurred. Signatures are
as in posexp/evaluation/protocols.py, but `lengths` are two, the training length and a longer one.

Shape suffixes: N targets, C copyable targets, A targets without an occurrence, K bigrams, V vocabulary.
"""

from functools import lru_cache

import numpy as np

from posexp.config.sections import Split
from posexp.data.store import Store, Tokens
from posexp.evaluation.probes import COUNTED, begun, counts_in_training, since_last
from posexp.evaluation.protocols import same_targets
from posexp.evaluation.targets import Measurement, Measurements, documents_of, targets_of

MATCH = 0.5  # largest distance of matched targets


def copyable(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Targets of same_targets whose bigram last occurred beyond the shorter length and within the longer one.

    The last occurrence before a target in its document begins more tokens back than the shorter length reaches, so that
    no span of that length shows it, and the span of the longer length shows it whole. Both lengths score the same
    targets, those that have a match in `copyable_absent`. Without any, there is no row.
    """
    return rows(tokens, lengths, longest, stride, bound, absent=False)


def copyable_absent(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """As many targets whose bigram does not occur within the longer length, each matched to one of `copyable`.

    The distance of two targets is |ln (1 + b) / (1 + b')| + |ln (1 + t) / (1 + t')|, for the counts b of their bigrams
    and t of the tokens in the training split. In the order of the text, each target that can be copied gets the nearest
    one left over, of equals the one with the rarest bigram that comes first, and is omitted if none is within MATCH.
    """
    return rows(tokens, lengths, longest, stride, bound, absent=True)


def rows(
    tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None, absent: bool
) -> Measurements:
    shorter, longer = lengths
    spans = same_targets(tokens, lengths, longest, stride, bound)
    target_N, context_N = targets_of(spans[1].windows)
    gap_N = since_bigram(tokens, target_N)
    chosen_C = np.flatnonzero((shorter <= gap_N) & (gap_N < context_N - begun(tokens)))
    free_A = np.flatnonzero((gap_N == 0) | (gap_N >= longer))
    pairs = matched(commonness(tokens, target_N), chosen_C, free_A)
    chosen_N = np.zeros(len(target_N), dtype=np.int64)
    chosen_N[[pair[absent] for pair in pairs]] = 1
    name = copyable_absent.__name__ if absent else copyable.__name__
    return [Measurement(name, row.length, None, row.windows, chosen_N, (0, 1)) for row in spans if pairs]


def since_bigram(tokens: Tokens, target_N: np.ndarray) -> np.ndarray:
    """Return the distance from each target's bigram to its last occurrence before in the document, 0 without one."""
    document_N = documents_of(tokens, target_N)
    gap_N = np.zeros(len(target_N), dtype=np.int64)
    for document in np.unique(document_N):
        here = document_N == document
        begin, stop = tokens.starts[document], int(target_N[here].max()) + 1
        _, bigram = np.unique(bigrams(tokens.ids[begin:stop]), return_inverse=True)
        gap_N[here] = np.pad(since_last(bigram), (1, 0))[target_N[here] - begin]
    return gap_N


def bigrams(ids: np.ndarray) -> np.ndarray:
    """Return a number for each token but the first and the token before it, int64."""
    return np.asarray((ids[:-1].astype(np.int64) << 32) + ids[1:])


def commonness(tokens: Tokens, target_N: np.ndarray) -> np.ndarray:
    """Return ln(1 + count) of each target's bigram and of the target in the training split, or in `tokens`, [2, N]."""
    bigram_N = (tokens.ids[target_N - 1].astype(np.int64) << 32) + tokens.ids[target_N]
    wanted_K, index_N = np.unique(bigram_N, return_inverse=True)
    store = tokens.store
    if store is not None and Split.train.value in store.meta["splits"]:
        count_K, count_V = bigrams_in_training(store, wanted_K.tobytes()), counts_in_training(store)
    else:
        count_K, count_V = counted(tokens.ids, wanted_K), np.bincount(tokens.ids)
    return np.asarray(np.log1p(np.stack((count_K[index_N], count_V[tokens.ids[target_N]]))))


@lru_cache(maxsize=1)
def bigrams_in_training(store: Store, wanted: bytes) -> np.ndarray:
    return counted(store.split(Split.train).ids, np.frombuffer(wanted, dtype=np.int64))


def counted(ids: np.ndarray, wanted_K: np.ndarray) -> np.ndarray:
    """Return the count of each of the sorted bigrams, int64 [K]."""
    count_K = np.zeros(len(wanted_K), dtype=np.int64)
    for first in range(0, len(ids), COUNTED):
        found = bigrams(ids[first : first + COUNTED + 1])
        place = np.minimum(np.searchsorted(wanted_K, found), len(wanted_K) - 1)
        count_K += np.bincount(place[wanted_K[place] == found], minlength=len(wanted_K))
    return count_K


def matched(common_2N: np.ndarray, chosen_C: np.ndarray, free_A: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs (chosen target, the nearest free one within MATCH), in which each target occurs once."""
    free_A = free_A[np.argsort(common_2N[0, free_A], kind="stable")]  # so that few lie within MATCH
    pairs, free_2A = [], common_2N[:, free_A]
    bigram_A = free_2A[0].copy()
    for target in chosen_C:
        bigram = common_2N[0, target]
        first, stop = np.searchsorted(bigram_A, (bigram - MATCH, bigram + MATCH))
        apart_A = np.abs(free_2A[:, first:stop] - common_2N[:, target, None]).sum(axis=0)
        if apart_A.min(initial=np.inf) <= MATCH:
            nearest = first + int(apart_A.argmin())
            pairs.append((int(target), int(free_A[nearest])))
            free_2A[:, nearest] = np.inf
    return pairs
