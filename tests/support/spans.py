"""Texts that count, and the targets that a protocol takes from them."""

import numpy as np

from posexp.data import Tokens
from posexp.evaluation.plan import PROTOCOLS, STRIDE
from posexp.evaluation.scoring import Scorer

V = 23  # entries of the vocabulary of texts that count 0, 1, … 22, 0, …


def text(*sizes: int) -> Tokens:
    """Documents of these sizes, whose tokens count on modulo V."""
    starts = np.concatenate(([0], np.cumsum(sizes)))
    return Tokens(np.arange(starts[-1]) % V, starts, int(starts[-1]), "", prefix=0)


def planned(tokens: Tokens, protocol: str, lengths: list[int], stride: int | None = None, targets: int | None = None):
    """One set of targets, which is that of the longest of `lengths`."""
    return PROTOCOLS[protocol].cut(tokens, sorted(lengths), max(lengths), stride or STRIDE, targets)


def listed(measurement) -> list[list[tuple[int, int]]]:
    """(target, tokens of context) of each window."""
    return [[(t, t - start) for t in range(first, stop)] for start, first, stop in measurement.windows.tolist()]


def token_losses(model, ids: np.ndarray, windows_W3: np.ndarray, *how) -> np.ndarray:
    """The loss of each target in nats, with the tokens of a batch, the device and the precision in `how`."""
    return Scorer(model, *how)(ids, windows_W3).nll
