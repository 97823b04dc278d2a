"""Passes that several spans share: if the losses of a model do not depend on later tokens, one pass over a long input
also gives the losses of every shorter input that starts at the same token.
"""

from collections.abc import Callable, Iterable

import numpy as np

from posexp.evaluation.scoring import Read, Scores


class Passes:
    """The losses of spans, each computed once.

    `wanted` are all spans that will be requested ([W, 3] each, see posexp/evaluation/targets.py); a pass scores the
    targets of all of them. `stable` is true if the loss of a target does not depend on later tokens. `read` counts the
    input tokens that were read, `asked` those that would have been read without sharing.
    """

    def __init__(self, score: Callable[[list[Read]], list[Scores]], wanted: Iterable[np.ndarray], stable: bool):
        self.score, self.stable = score, stable
        self.done: dict[tuple[int, int], tuple[Read, Scores]] = {}
        self.read = self.asked = 0
        self.latest: np.ndarray | None = None
        ranges: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for windows in wanted:
            for start, first, stop in windows.tolist():
                ranges.setdefault(self.key(start, stop), set()).add((first, stop))
        self.ranges = ranges

    def key(self, start: int, stop: int) -> tuple[int, int]:
        return (start, 0 if self.stable else stop)

    def __call__(self, windows_W3: np.ndarray) -> Scores:
        """Return the scores of every target, in the order of the spans."""
        if windows_W3 is not self.latest:  # rows of per_position share one array, which counts once
            self.asked += int((windows_W3[:, 2] - 1 - windows_W3[:, 0]).sum())
            self.latest = windows_W3
        stops: dict[tuple[int, int], tuple[int, int]] = {}  # (start, stop) of missing passes
        for start, _, stop in windows_W3.tolist():
            key = self.key(start, stop)
            if not self.serves(key, stop):
                stops[key] = start, max(stop, stops.get(key, (0, 0))[1])
        reads = [Read(start, stop, self.targets(key, stop)) for key, (start, stop) in stops.items()]
        if reads:
            for key, read, scores in zip(stops, reads, self.score(reads), strict=True):
                self.done[key] = read, scores
                self.read += read.inputs
        nlls, hits = [], []
        for start, first, stop in windows_W3.tolist():
            read, scores = self.done[self.key(start, stop)]
            begin = int(np.searchsorted(read.targets, first))
            nlls.append(scores.nll[begin : begin + stop - first])
            hits.append(scores.hit[begin : begin + stop - first])
        return Scores(np.concatenate(nlls), np.concatenate(hits))

    def serves(self, key: tuple[int, int], stop: int) -> bool:
        """Return whether a finished pass gives the losses of an input that ends before `stop`."""
        if key not in self.done:
            return False
        read, scores = self.done[key]
        # a long input can overflow where a short one does not
        return read.stop == stop or (read.stop > stop and bool(np.isfinite(scores.nll).all()))

    def targets(self, key: tuple[int, int], stop: int) -> np.ndarray:
        """Return the wanted targets that a pass which ends before `stop` can score."""
        return np.unique(np.concatenate([np.arange(first, last) for first, last in self.ranges[key] if last <= stop]))
