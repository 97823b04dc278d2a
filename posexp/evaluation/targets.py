"""The targets of an evaluation: the tokens that are scored, each with its context.

Spans are int64 [W, 3] of (start, first, stop): the model reads tokens start … stop-2, and the targets
first … stop-1 are scored. Token t has t - start tokens of context. Offsets count from the first token of the split, in
which documents follow one another. Variables and columns call spans windows. Shape suffixes: W spans, N targets.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from posexp.data.store import Tokens
from posexp.data.tracks import optimum


@dataclass(frozen=True)
class Chooser:
    """The run that chose targets by its losses: its name and its weights' checksum."""

    run: str
    weights: str


@dataclass(frozen=True)
class Measurement:
    """The targets of one row.

    `windows` are the spans. With `by` (int64 [N], a number for each target, such as its context), the row reports the
    targets whose `by` lies in (within[0], within[1]], otherwise all. `control` names the control that removes far
    context: "window", "shuffled" or "" for none. `tokens` is the text, None for the split. With `window_means`, all
    spans have equal weight. For a `task`, each document is an example, which is right if all of its targets are, and
    `trained` is the largest size in training. `chooser` is the run that chose the targets, if one did.
    """

    protocol: str
    length: int
    stride: int | None
    windows: np.ndarray
    by: np.ndarray | None = None
    within: tuple[int, int] = (0, 0)
    control: str = ""
    tokens: Tokens | None = None
    window_means: bool = False
    task: bool = False
    trained: int | None = None
    chooser: Chooser | None = None

    @property
    def inputs(self) -> int:
        """The length of the longest input, in tokens."""
        return int((self.windows[:, 2] - 1 - self.windows[:, 0]).max())

    @property
    def read(self) -> int:
        """The length of all inputs together, in tokens."""
        return int((self.windows[:, 2] - 1 - self.windows[:, 0]).sum())

    @property
    def chosen(self) -> np.ndarray:
        """The mask of the targets that the row reports, bool [N]."""
        if self.by is None:
            return np.ones(int((self.windows[:, 2] - self.windows[:, 1]).sum()), dtype=bool)
        low, high = self.within
        return (low < self.by) & (self.by <= high)

    def chosen_by(self, weights: str) -> str | None:
        """Return the run that chose the targets, None without one; "itself" for the model with the same weights."""
        if self.chooser is None:
            return None
        return "itself" if weights == self.chooser.weights else self.chooser.run

    def weights(self) -> np.ndarray:
        """Return the weight of each target in the mean, float64 [N]."""
        counts_W = self.windows[:, 2] - self.windows[:, 1]
        each_W = 1 / counts_W if self.window_means else np.ones(len(counts_W))
        return np.repeat(each_W, counts_W)

    def optimum(self, tokens: Tokens) -> np.ndarray | None:
        """Return the best possible loss of each target that the row reports, float64 nats; None if that is unknown."""
        track = None if self.tokens or self.control or tokens.store is None else tokens.store.meta.get("track")
        if track is None:
            return None
        best = optimum(track, np.asarray(tokens.ids), tokens.starts, self.windows)[self.chosen]
        return best if np.isfinite(best).all() else None


Measurements = list[Measurement]


def targets_of(windows_W3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (offset, tokens of context) of every target, int64 [N] each, in the order of the spans."""
    counts_W = windows_W3[:, 2] - windows_W3[:, 1]
    window_N = np.repeat(np.arange(len(windows_W3)), counts_W)
    within_N = np.arange(len(window_N)) - np.repeat(np.cumsum(counts_W) - counts_W, counts_W)
    target_N = windows_W3[window_N, 1] + within_N
    return target_N, target_N - windows_W3[window_N, 0]


def documents_of(tokens: Tokens, target_N: np.ndarray) -> np.ndarray:
    """Return the index of each target's document, int64 [N]."""
    return np.searchsorted(tokens.starts, target_N, side="right") - 1


def targets_hash(tokens: Tokens, target_N: np.ndarray, by_N: np.ndarray | None = None) -> str:
    """Return twelve hex digits of the targets' offsets and token ids, and of `by_N`, in any order of the spans."""
    order = np.argsort(target_N, kind="stable")
    sha = hashlib.sha256(target_N[order].astype("<i8").tobytes())
    sha.update(np.asarray(tokens.ids[target_N[order]]).astype("<i8").tobytes())
    if by_N is not None:
        sha.update(by_N[order].astype("<i8").tobytes())
    return sha.hexdigest()[:12]
