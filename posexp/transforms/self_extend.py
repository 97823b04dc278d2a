"""Self-Extend. Jin et al. 2024, arXiv 2401.01325, section 3; rules of thumb of datamllab/LongLM."""

import math

from posexp.dims import Dims
from posexp.transforms.far_keys import FarKeys
from posexp.windows import Far, at_least


class SelfExtend(FarKeys):
    """Exact positions for the latest `window` tokens, and shared positions for groups of `group` tokens further back.

    Distances from `window` on count as floor(m / group) - floor(n / group) + window - floor(window / group).
    `window` null is a quarter of the training length, as 1024 for Llama 2's 4096. `group` null is the smallest group
    for which the longest distance, window + (length - window) / group, is within two thirds of the training length,
    since longer distances are too rare in training.
    """

    def __init__(self, dims: Dims, window: int | None, group: int | None):
        super().__init__(dims)
        self.window = at_least("transform.window", max(1, dims.train_length // 4) if window is None else window, 1)
        self.group = at_least("transform.group", group, 1)

    def grouped(self, length: int) -> int:
        """Return the tokens of a group for inputs of at most `length` tokens."""
        if self.group is not None:
            return self.group
        room = 2 / 3 * self.dims.train_length - self.window
        if length <= self.dims.train_length or room <= 0:
            return 1
        return math.ceil((length - self.window) / room)

    def far(self, length: int) -> Far | None:
        group = self.grouped(length)
        if group == 1:
            return None
        start = self.window - self.window // group
        return Far(self.window - 1, lambda index_T: index_T // group + start, lambda index_T: index_T // group)

    def describe(self, length: int) -> str:
        return f"self_extend(window={self.window}, group={self.grouped(length)})"
