"""Protocols: which targets are scored, and how much text before each the model sees.

Same words have meant different things in print; here each has a name of its own. A protocol is a function of the
tokens of a split, the lengths (ascending), the longest length that shares their targets, a stride and a bound on the
targets of a length (None: all there are). Which targets are scored depends on that longest length, which
posexp/evaluation/spans.py takes from the text, and never on the lengths themselves. A protocol returns one Measurement
a length; posexp/evaluation/targets.py says what windows are.

L: the length being measured, s: the stride.
"""

import numpy as np

from posexp.data.store import Tokens
from posexp.errors import Misuse
from posexp.evaluation import spans
from posexp.evaluation.targets import Measurement, Measurements, targets_of

MIN_WINDOWS = 16  # so that they lie in several documents, and an interval can be computed
LEVEL_TARGETS = 8  # times as many as a length has, which makes 65,536 by default
MIN_BLOCKS = 32  # of targets, where a bound would leave fewer: so that they lie in many documents, or in all


def same_targets(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The same targets at every length, each with `longest` tokens of its own document before it.

    At length L a window scores L/16 targets, at most MOST_SCORED, so that each has more than 15/16 of L tokens of
    context: only the context grows. The targets are those of the longest length, in blocks that are spread evenly over
    documents and within each. (ReRoPE is evaluated like this, with windows that score as many targets as the shortest
    length has tokens; Su 2023.) The stride is ignored.
    """
    block = spans.scored(longest)
    if bound is not None:
        holding = int((spans.blocks(tokens, longest, 1) > 0).sum())  # documents
        block = min(block, max(1, spans.power_below(bound // max(1, min(MIN_BLOCKS, holding)))))
    block_M = spans.spread(tokens, longest, block, bound)
    found = []
    for length in lengths:
        each = min(block, spans.scored(length))
        first_W = (block_M[:, None] + np.arange(0, block, each)).ravel()
        stop_W = first_W + each
        windows_W3 = np.stack((stop_W - 1 - length, first_W, stop_W), axis=1)
        found.append(Measurement("same_targets", length, None, windows_W3))
    return found


def level(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Many targets at the training length, to measure the level of the loss.

    A span scores L/4 targets, so that each has more than 3/4 of L tokens of context, of its own document. A bound
    allows LEVEL_TARGETS times as many.
    """
    found = []
    for length in lengths:
        each = max(1, spans.power_below(length // 4))
        while each > 1 and not spans.blocks(tokens, length, each).any():
            each //= 2  # for documents that are hardly longer than L
        first_W = spans.spread(tokens, length, each, None if bound is None else LEVEL_TARGETS * bound)
        windows_W3 = np.stack((first_W + each - 1 - length, first_W, first_W + each), axis=1)
        found.append(Measurement("level", length, None, windows_W3))
    return found


def nonoverlapping(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The classic one (ALiBi's main tables, BiPE, mlx-lm): the documents in a row are cut into windows of L, and every
    target is scored once.

    A window's first targets have little context, and windows run across documents. Every target costs one
    token of input here, so a bound is kept loosely: with stretches of the longest length, spread evenly over
    the split, at least MIN_STRETCHES. All lengths cut the same stretches.
    """
    return [
        Measurement("nonoverlapping", length, None, spans.cut(spans.stretches(tokens, longest, bound), length))
        for length in lengths
    ]


def last_k(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The windows of `nonoverlapping`, of which only the last s targets are scored (DAPE, with 256).

    Every target has nearly L tokens of context, but each length scores other targets.
    """
    found = []
    for length in lengths:
        windows_W3 = spans.cut(spans.stretches(tokens, longest, bound), length)
        windows_W3 = windows_W3[windows_W3[:, 2] - 1 - windows_W3[:, 0] == length]
        windows_W3[:, 1] = windows_W3[:, 2] - stride
        found.append(Measurement("last_k", length, stride, windows_W3))
    return found


def second_half(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Windows of L tokens, of which the second half is scored: all tokens from L/2+1 on (llama.cpp's perplexity).

    With n_ctx = L these are llama.cpp's targets and contexts, L/2+1 to L-1 tokens: it reads L tokens, and the last of
    them predicts none. Windows do not overlap and run across documents, and a last one that is not whole is left out.
    """
    if min(lengths) < 3:
        raise Misuse("second_half scores tokens behind the middle of a window: every length must be at least 3")
    found = []
    for length in lengths:
        windows_W3 = spans.cut(spans.stretches(tokens, longest, bound), length)
        windows_W3 = windows_W3[windows_W3[:, 2] - windows_W3[:, 0] >= length]
        windows_W3[:, 1] = windows_W3[:, 0] + length // 2 + 1
        windows_W3[:, 2] = windows_W3[:, 0] + length
        found.append(Measurement("second_half", length, None, windows_W3))
    return found


def fixed_windows(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """As many windows at every length, scored whole (KERPLE, DAPE, x-transformers): long ones score more targets.

    They start where the stretches of the longest length do.
    """
    wanted = len(tokens.ids) if bound is None else max(bound, MIN_WINDOWS * longest)
    begin_M = spans.stretches(tokens, longest, wanted)[:, 0]
    return [
        Measurement("fixed_windows", length, None, np.stack((begin_M, begin_M + 1, begin_M + length + 1), axis=1))
        for length in lengths
    ]


def sliding(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Windows of L that move on by s over the documents in a row; only new tokens are scored (Press et al. 2021).

    The first window is scored whole. A bound takes the beginning of the split, at least twice the longest length.
    """
    return [Measurement("sliding", n, stride, spans.slid(tokens, longest, n, stride, bound)) for n in lengths]


def window_means(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The windows of `sliding`; the mean of their means, though the first has more targets than others (YaRN's script,
    and the guide of transformers for long)."""
    return [
        Measurement("window_means", n, stride, spans.slid(tokens, longest, n, stride, bound), window_means=True)
        for n in lengths
    ]


def sliding_late(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """`sliding` without the first window, and without what lies before the end of the longest length's first one: so
    every target has L-s+1 to L tokens of context, across documents (AntNLP's NoPE)."""
    first = longest + 1
    spans.check_stream(len(tokens.ids) - 2, longest)
    found = []
    for length in lengths:
        windows_W3 = spans.slid(tokens, longest, length, stride, bound)
        windows_W3 = windows_W3[windows_W3[:, 2] > first]
        windows_W3[:, 1] = np.maximum(windows_W3[:, 1], first)
        found.append(Measurement("sliding_late", length, stride, windows_W3))
    return found


def overlapping(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Windows of L start every s, each scored whole: a token counts up to L/s times (the script of LongLoRA, LCEG)."""
    end = spans.streamed(tokens, longest, bound)
    found = []
    for length in lengths:
        start_W = np.arange(0, end - length + 1, stride)
        windows_W3 = np.stack((start_W, start_W + 1, start_W + length + 1), axis=1)
        found.append(Measurement("overlapping", length, stride, windows_W3))
    return found


def truncated(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The first L tokens of every document that is longer than the longest length, scored whole (YaRN's tables)."""
    begin_M = heads(tokens, longest, bound)
    return [
        Measurement("truncated", length, None, np.stack((begin_M, begin_M + 1, begin_M + length + 1), axis=1))
        for length in lengths
    ]


def document_heads(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The beginnings of the documents that `truncated` takes, as many tokens as the longest length at every length,
    cut into windows of L: the same targets, but many with little context (xPos)."""
    begin_M = heads(tokens, longest, bound)
    stretches_M2 = np.stack((begin_M, begin_M + longest), axis=1)
    return [Measurement("document_heads", length, None, spans.cut(stretches_M2, length)) for length in lengths]


def per_document(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Every document is cut into windows of L by itself, so that none sees another; its first token is not scored.

    A bound takes as many tokens from the beginning of each document, at least the longest length.
    """
    first_D, stop_D = beginnings(tokens, longest, bound)
    if not (stop_D > first_D + 1).any():
        raise Misuse("no document has two tokens: per_document has nothing to score")
    stretches_M2 = np.stack((first_D, stop_D - 1), axis=1)
    return [Measurement("per_document", length, None, spans.cut(stretches_M2, length)) for length in lengths]


def rolling(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """The rolling likelihoods of lm-evaluation-harness: every document by itself, behind BOS or else EOS, so that its
    first token is scored too.

    The windows of a document share no target. Its last window begins earlier, so that the model reads L tokens there
    too (`get_rolling_token_windows` and `make_disjoint_window` of lm_eval/utils.py). A bound acts as in `per_document`.
    """
    if tokens.prefix is None:
        raise Misuse("rolling reads documents behind BOS or EOS, and this tokenizer has neither: choose per_document")
    first_D, stop_D = beginnings(tokens, longest, bound)
    documents = [np.append(tokens.prefix, tokens.ids[n:stop]) for n, stop in zip(first_D, stop_D, strict=True)]
    starts = np.concatenate(([0], np.cumsum([len(document) for document in documents])))
    text = Tokens(np.concatenate(documents), starts, tokens.bytes, "", tokens.store)
    found = []
    for length in lengths:
        windows_W3 = spans.cut(np.stack((starts[:-1], starts[1:] - 1), axis=1), length)
        earliest_W = starts[:-1][np.searchsorted(starts, windows_W3[:, 1], side="right") - 1]
        windows_W3[:, 0] = np.maximum(earliest_W, windows_W3[:, 2] - 1 - length)
        found.append(Measurement("rolling", length, None, windows_W3, tokens=text))
    return found


def beginnings(tokens: Tokens, longest: int, bound: int | None) -> tuple[np.ndarray, np.ndarray]:
    """[first token, stop) of every document, int64 [D] each; with a bound, of the beginnings of some."""
    first_D, stop_D = tokens.starts[:-1], tokens.starts[1:]
    if bound is not None:
        chosen = spans.evenly(len(first_D), max(MIN_WINDOWS, bound // longest))
        first_D, stop_D = first_D[chosen], stop_D[chosen]
        stop_D = np.minimum(stop_D, first_D + max(longest, bound // len(chosen)) + 1)
    return first_D, stop_D


def per_position(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Loss against context within the longest window: `length` is the most context that a row's targets have."""
    windows = spans.cut(spans.stretches(tokens, longest, bound), longest)
    _, context_N = targets_of(windows)
    edges = sorted({min(longest, round(2 ** (power / 2))) for power in range(0, 2 * longest.bit_length() + 1)})
    ranges = zip([0, *edges[:-1]], edges, strict=True)
    return [Measurement("per_position", high, None, windows, context_N, (low, high)) for low, high in ranges]


def heads(tokens: Tokens, longest: int, bound: int | None) -> np.ndarray:
    """Where documents of more than `longest` tokens begin, int64 [M]; with a bound some of them, evenly taken."""
    sizes_D = np.diff(tokens.starts)
    begin_M = tokens.starts[:-1][sizes_D > longest]
    if not len(begin_M):
        raise spans.TooLong("no document is long enough", int(sizes_D.max(initial=0)) - 1)
    return begin_M if bound is None else begin_M[spans.evenly(len(begin_M), max(MIN_WINDOWS, bound // longest))]
