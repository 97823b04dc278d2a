"""Targets: the tokens that are scored, each with some text before it.

Windows are int64 [W, 3] of (start, first, stop): the model reads tokens start … stop-2, and the targets
first … stop-1 are scored. Token t has t - start tokens of context. All offsets count from the first token of the
split; documents stand one after the other. Shape suffixes: W windows, N targets.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from posexp.data.store import Tokens


@dataclass(frozen=True)
class Measurement:
    """One row to be.

    With `by` (int64 [N], what targets are told apart by, as their context) and `within` the row is about the targets
    whose `by` lies in (within[0], within[1]], else about all; `control` says what is changed to
    find out what the model would do without far context ("window", "shuffled", or ""); `tokens` the text, None that
    of the split; with `window_means` each window weighs the same, however many targets it has. Of a task, each
    document is an example, right if all of its targets are, and `trained` is the largest size in training.
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

    @property
    def inputs(self) -> int:
        """Tokens of the longest input."""
        return int((self.windows[:, 2] - 1 - self.windows[:, 0]).max())

    @property
    def read(self) -> int:
        """Tokens of all inputs."""
        return int((self.windows[:, 2] - 1 - self.windows[:, 0]).sum())

    @property
    def chosen(self) -> np.ndarray:
        """Which of the windows' targets the row is about, bool [N]."""
        if self.by is None:
            return np.ones(int((self.windows[:, 2] - self.windows[:, 1]).sum()), dtype=bool)
        low, high = self.within
        return (low < self.by) & (self.by <= high)

    def weights(self) -> np.ndarray:
        """Of each target in the mean, float64 [N]."""
        counts_W = self.windows[:, 2] - self.windows[:, 1]
        each_W = 1 / counts_W if self.window_means else np.ones(len(counts_W))
        return np.repeat(each_W, counts_W)


def targets_of(windows_W3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(offset, tokens of context) of every target, int64 [N] each, in the order of the windows."""
    counts_W = windows_W3[:, 2] - windows_W3[:, 1]
    window_N = np.repeat(np.arange(len(windows_W3)), counts_W)
    within_N = np.arange(len(window_N)) - np.repeat(np.cumsum(counts_W) - counts_W, counts_W)
    target_N = windows_W3[window_N, 1] + within_N
    return target_N, target_N - windows_W3[window_N, 0]


def documents_of(tokens: Tokens, target_N: np.ndarray) -> np.ndarray:
    """Index of the document that each target lies in, int64 [N]."""
    return np.searchsorted(tokens.starts, target_N, side="right") - 1


def targets_hash(tokens: Tokens, target_N: np.ndarray, by_N: np.ndarray | None = None) -> str:
    """Twelve hex digits of where the scored targets are and what they are; equal only if the very same text is scored.

    `by_N`, what they are told apart by, counts too. The order of the windows does not.
    """
    order = np.argsort(target_N, kind="stable")
    sha = hashlib.sha256(target_N[order].astype("<i8").tobytes())
    sha.update(np.asarray(tokens.ids[target_N[order]]).astype("<i8").tobytes())
    if by_N is not None:
        sha.update(by_N[order].astype("<i8").tobytes())
    return sha.hexdigest()[:12]
