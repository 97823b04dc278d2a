"""Probes: protocols that measure what a model retrieves from its context, which perplexity hardly shows.

Signatures are as in posexp/evaluation/protocols.py. Shape suffixes: M trials, T tokens of a trial's text, S tokens of
the repeated span, F of filler, P of a passage, D documents, V entries of the vocabulary, W spans, N targets.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from posexp.config.sections import Split
from posexp.data.store import Store, Tokens
from posexp.errors import Misuse
from posexp.evaluation.protocols import MIN_WINDOWS
from posexp.evaluation.spans import TooLong, check_stream, evenly, share_out, spread
from posexp.evaluation.targets import Measurement, Measurements, documents_of, targets_of

RARE = 0.1  # share of the text that is rare tokens
COUNTED = 1 << 24  # tokens counted at a time


def induction(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """A span of s random tokens, then text, then a copy of the span. All tokens of the copy but the first are scored.

    The first copy of a target lies L+1-s tokens back, one less behind a beginning token (Olsson et al. 2022, arXiv
    2209.11895, section on repeated random tokens). The tokens of the span are drawn independently from the split, so
    they have its frequencies and no order. The text in between is text of the split. All lengths share the end of the
    text and the second copy, so all score the same targets.
    """
    text_MT, span_MS = trials(tokens, lengths, longest, stride, bound)
    found = []
    for length in lengths:
        begin = text_MT.shape[1] - (length + 1) + begun(tokens)
        repeated_MT = text_MT.copy()
        repeated_MT[:, begin : begin + stride] = span_MS
        found.append(
            Measurement("induction", length, stride, copies(text_MT, length, stride), tokens=laid(repeated_MT, tokens))
        )
    return found


def induction_absent(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The targets of `induction` without the first copy: the loss of a model that has nothing to retrieve."""
    text_MT, _ = trials(tokens, lengths, longest, stride, bound)
    text = laid(text_MT, tokens)
    return [
        Measurement("induction_absent", length, stride, copies(text_MT, length, stride), tokens=text)
        for length in lengths
    ]


def trials(
    tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (text [M, T], span [M, S]): M pieces of the split, longest + 1 tokens each, that end with their span."""
    if stride < 2 or min(lengths) + 1 - begun(tokens) < 2 * stride:
        raise Misuse(
            f"induction repeats eval.stride={stride} tokens: eval.stride must be at least 2, and every length at least "
            f"twice eval.stride; the shortest length is {min(lengths)}"
        )
    size = longest + 1
    check_stream(len(tokens.ids) - 1, size - 1)
    possible = len(tokens.ids) // size
    begin_M = evenly(possible, possible if bound is None else max(MIN_WINDOWS, bound // (stride - 1))) * size
    text_MT = tokens.ids[begin_M[:, None] + np.arange(size)]
    draw = np.random.default_rng(0)
    span_MS = tokens.ids[draw.integers(len(tokens.ids), size=(len(begin_M), stride))]
    text_MT[:, -stride:] = span_MS
    return text_MT, span_MS


def copies(text_MT: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Return [M, 3]: the last `length` inputs of each trial, with all tokens of the copy but the first as targets."""
    M, T = text_MT.shape
    stop_M = (np.arange(M) + 1) * T
    return np.stack((stop_M - 1 - length, stop_M - stride + 1, stop_M), axis=1)


def begun(tokens: Tokens) -> int:
    """Return 1 if a beginning token replaces the first token of each input, else 0."""
    return int(tokens.bos is not None)


def laid(text_MT: np.ndarray, tokens: Tokens) -> Tokens:
    """Return the trials as text, one document each."""
    M, T = text_MT.shape
    return Tokens(text_MT.ravel(), np.arange(M + 1) * T, 0, "", tokens.store, tokens.bos)


def passage_at(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """One passage behind more and more unrelated text, so that it stands at ever later positions.

    A passage is 2 s tokens of one document, of which the last s are scored: at every length a target has the same s to
    2 s - 1 tokens of its own document before it. In front of the passage, up to L tokens in all, stands text from half
    the split away; the tokens nearest to the passage are the same at all lengths. That text has nothing to do with the
    passage, so the loss of a sound model hardly changes, and a rise is the work of positions or of the number of
    tokens. (Without the text a later position would change nothing in a relative scheme, whatever its frequencies.)
    """
    if 2 * stride > min(lengths):
        raise Misuse(
            f"passage_at places passages of twice eval.stride={stride} tokens: the shortest length is {min(lengths)}"
        )
    total, size = len(tokens.ids), longest + 1
    if 2 * longest > total:
        raise TooLong("the split is too short", total // 2)
    first_M = spread(tokens, stride, stride, None if bound is None else max(bound, MIN_WINDOWS * stride))
    begin_M = first_M - stride
    filler_MF = tokens.ids[((begin_M + total // 2)[:, None] + np.arange(2 * stride - size, 0)) % total]
    passage_MP = tokens.ids[begin_M[:, None] + np.arange(2 * stride)]
    _, first_D = np.unique(documents_of(tokens, first_M), return_index=True)
    starts = np.append(first_D, len(first_M)) * size
    text = replace(laid(np.concatenate((filler_MF, passage_MP), axis=1), tokens), starts=starts)
    stop_M = (np.arange(len(first_M)) + 1) * size
    return [
        Measurement("passage_at", n, stride, np.stack((stop_M - 1 - n, stop_M - stride, stop_M), axis=1), tokens=text)
        for n in lengths
    ]


def repeats(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Rare tokens of real text that occur earlier in the same input, by the distance to the last occurrence.

    The row's `length` is the largest distance. Inputs are of the longest length and lie inside one document. Frequent
    tokens can be guessed without context, rare tokens hardly (arXiv 2209.11895 compares early and late tokens; here
    the distance is known).
    """
    windows_W3 = inside(tokens, longest, bound)
    target_N, _ = targets_of(windows_W3)
    text = begun(tokens)
    gap_N = np.concatenate(
        [np.pad(since_last(tokens.ids[start + text : stop]), (text, 0))[1:] for start, _, stop in windows_W3.tolist()]
    )
    gap_N[~rare(tokens)[tokens.ids[target_N]]] = 0
    if not gap_N.any():
        raise Misuse(f"no rare token occurs twice within {longest} tokens of a document: repeats has nothing to score")
    return ranges("repeats", windows_W3, gap_N, longest)


def ranges(protocol: str, windows_W3: np.ndarray, by_N: np.ndarray, longest: int) -> Measurements:
    """Return the measurements of targets by half octaves of `by_N`, up to `longest`, without empty ones."""
    edges = sorted({min(longest, round(2 ** (power / 2))) for power in range(0, 2 * longest.bit_length() + 1)})
    found = []
    for low, high in zip([0, *edges[:-1]], edges, strict=True):
        if ((low < by_N) & (by_N <= high)).any():
            found.append(Measurement(protocol, high, None, windows_W3, by_N, (low, high)))
    return found


def inside(tokens: Tokens, length: int, bound: int | None) -> np.ndarray:
    """Return [W, 3]: spans of `length` inputs inside one document, scored whole, spread evenly over documents."""
    places_D = np.maximum(0, (np.diff(tokens.starts) - 1) // length)
    if not places_D.any():
        raise TooLong("no document is long enough", int(np.diff(tokens.starts).max(initial=0)) - 1)
    taken_D = share_out(places_D, int(places_D.sum()) if bound is None else max(MIN_WINDOWS, bound // length))
    begin_W = np.concatenate(
        [
            first + length * (np.arange(taken) * places // max(1, taken))
            for first, places, taken in zip(tokens.starts[:-1], places_D, taken_D, strict=True)
        ]
    )
    return np.stack((begin_W, begin_W + 1, begin_W + length + 1), axis=1)


def since_last(ids_T: np.ndarray) -> np.ndarray:
    """Return the distance from each token to its last occurrence before, 0 without one, int64 [T]."""
    order_T = np.argsort(ids_T, kind="stable")  # equal tokens side by side, in the order of the text
    again = ids_T[order_T[1:]] == ids_T[order_T[:-1]]
    gap_T = np.zeros(len(ids_T), dtype=np.int64)
    gap_T[order_T[1:][again]] = np.diff(order_T)[again]
    return gap_T


def rare(tokens: Tokens) -> np.ndarray:
    """Return which tokens are the rarest, a share RARE of the training split, or of `tokens` without one, bool [V]."""
    store = tokens.store
    trained = store is not None and Split.train.value in store.meta["splits"]
    count_V = counts_in_training(store) if trained else np.bincount(tokens.ids)
    order_V = np.argsort(count_V, kind="stable")
    rare_V = np.zeros(len(count_V), dtype=bool)
    rare_V[order_V[count_V[order_V].cumsum() <= RARE * count_V.sum()]] = True
    return rare_V


@lru_cache(maxsize=1)
def counts_in_training(store: Store) -> np.ndarray:
    """Return the count of each token in the training split, int64 [V]."""
    ids = store.split(Split.train).ids
    pieces = (ids[first : first + COUNTED] for first in range(0, len(ids), COUNTED))
    return np.asarray(sum(np.bincount(piece, minlength=store.vocab_size) for piece in pieces))
