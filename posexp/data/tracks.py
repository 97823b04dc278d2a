"""The tracks: generated documents of token ids whose best possible loss is known at every length of context.

A track needs neither text nor a tokenizer. Equal options give equal documents on every machine: only uniform random
numbers of PCG64 are drawn, in blocks of documents with a seed of their own.

Shape suffixes: N tokens of a split, M targets, D documents, T tokens of a document, V symbols, W spans.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from posexp.config.sections import DataConfig, Split
from posexp.data import recall
from posexp.data.documents import Documents, between
from posexp.errors import Misuse

TRAIN_TOKENS = 2049  # of a training document, so that training at up to 2,048 tokens is possible
HELD_OUT_DOCUMENTS, HELD_OUT_TOKENS = 64, 16385  # of the validation and the test split each
BLOCK = 64  # documents with one seed
SEED = 240211004


@dataclass(frozen=True)
class Track:
    """A kind of documents.

    `draw` returns documents [D, T] of `symbols` different ids. `optimum` returns the loss in nats, float64 [M], that
    the best possible predictor has on the targets at offsets [M] of ids [N] with `symbols` different values, if it
    reads the text from the offsets [M] on, which lie in the documents of the targets; NaN where that is unknown.
    `distance` has the same arguments, with the beginnings of documents as offsets. It returns the tokens that a
    predictor must read to know each target, 0 for targets that are not scored; None if all are scored.
    """

    draw: Callable[[np.random.Generator, int, int, int], np.ndarray]
    optimum: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
    least_symbols: int = 2
    distance: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray] | None = None


def draw_markov(random: np.random.Generator, symbols: int, documents: int, size: int) -> np.ndarray:
    """Draw Markov chains, each with its own transition matrix, whose rows are uniform on the simplex (Dirichlet(1)).

    Edelman et al. 2024, arXiv 2402.11004, section 2. The first symbol is uniform. Returns int64 [documents, size].
    """
    weight_DVV = -np.log1p(-random.random((documents, symbols, symbols)))  # exponential; normalised: Dirichlet(1)
    upper_DVV = weight_DVV.cumsum(-1)
    upper_DVV /= upper_DVV[..., -1:]
    draw_TD = random.random((size, documents))
    ids_TD = np.empty((size, documents), dtype=np.int64)
    ids_TD[0] = np.minimum(draw_TD[0] * symbols, symbols - 1)
    document_D = np.arange(documents)
    for t in range(1, size):
        upper_DV = upper_DVV[document_D, ids_TD[t - 1]]
        ids_TD[t] = (draw_TD[t][:, None] >= upper_DV[:, :-1]).sum(-1)
    return ids_TD.T


def markov_optimum(ids_N: np.ndarray, start_M: np.ndarray, target_M: np.ndarray, symbols: int) -> np.ndarray:
    """Return the loss of the Bayes predictor: (count of the transition + 1) / (count of its first symbol + V).

    Counts are those of transitions between tokens that the predictor reads (arXiv 2402.11004, section 2). What the
    first symbol that is read tells about the matrix is not used.
    """
    size, before_N = len(ids_N), np.concatenate(([0], ids_N[:-1])).astype(np.int64)
    own_M = before_N[target_M] * symbols + ids_N[target_M]

    def earlier(code_N: np.ndarray, code_M: np.ndarray) -> np.ndarray:
        """Count the tokens of each target's code between the second that is read and the target."""
        key_N = np.sort(code_N * size + np.arange(size))
        first_M = key_N.searchsorted(code_M * size + np.minimum(start_M + 1, target_M))
        return key_N.searchsorted(code_M * size + target_M) - first_M

    seen_M = earlier(before_N * symbols + ids_N, own_M)
    known_M = earlier(before_N, before_N[target_M])
    loss_M = -np.log((seen_M + 1) / (known_M + symbols))
    return np.where(target_M > start_M, loss_M, np.log(symbols))  # before the first symbol nothing is known


TRACKS = {
    "markov": Track(draw_markov, markov_optimum),
    "recall": Track(recall.draw_recall, recall.recall_optimum, recall.LEAST_SYMBOLS, recall.recall_distance),
}


def blocks(config: DataConfig, split: Split) -> Iterator[np.ndarray]:
    """Yield the documents of a split, int64 [D, T] at a time. Raises Misuse for an unknown track or too few symbols."""
    if config.track not in TRACKS:
        raise Misuse(f"no track {config.track!r}; there are {', '.join(TRACKS)}")
    track = TRACKS[config.track]
    if config.vocab_size < track.least_symbols:
        raise Misuse(f"data.vocab_size={config.vocab_size} must be at least {track.least_symbols} for {config.track}")
    held_out = split is not Split.train
    documents = HELD_OUT_DOCUMENTS if held_out else config.track_documents
    for first in range(0, documents, BLOCK):
        random = np.random.Generator(np.random.PCG64([SEED, list(Split).index(split), first]))
        size = HELD_OUT_TOKENS if held_out else TRAIN_TOKENS
        yield track.draw(random, config.vocab_size, min(BLOCK, documents - first), size)


def read_track(config: DataConfig) -> dict[Split, Documents]:
    """Return the documents of each split, as ids. Raises Misuse as `blocks` does."""
    splits = {}
    for split in Split:
        found = list(blocks(config, split))
        ends = [np.arange(len(ids_DT) + 1) * ids_DT.shape[1] for ids_DT in found]
        splits[split] = between([ids_DT.ravel() for ids_DT in found], ends, False)
    return splits


def track_content(config: DataConfig) -> list[str | int]:
    """Return what identifies the documents, with a hash of the first block of each split. Raises Misuse as above."""
    digest = hashlib.sha256()
    for split in Split:
        digest.update(next(blocks(config, split)).astype("<i8").tobytes())
    return [config.track, config.vocab_size, config.track_documents, digest.hexdigest()]


def optimum(about: dict[str, Any], ids_N: np.ndarray, starts_D1: np.ndarray, span_W3: np.ndarray) -> np.ndarray:
    """Return the best possible loss of every target of the spans, float64 [M] nats, on the track that `about` names."""
    count_W = span_W3[:, 2] - span_W3[:, 1]
    start_M = np.repeat(span_W3[:, 0], count_W)
    target_M = np.arange(len(start_M)) + np.repeat(span_W3[:, 1] - np.cumsum(count_W) + count_W, count_W)
    document_M = starts_D1[np.searchsorted(starts_D1, target_M, side="right") - 1]
    return TRACKS[about["name"]].optimum(ids_N, np.maximum(start_M, document_M), target_M, about["symbols"])
