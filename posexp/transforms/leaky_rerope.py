"""Leaky ReRoPE. Su 2023, kexue.fm/archives/9708 and bojone/rerope."""

from posexp.dims import Dims
from posexp.transforms.far_keys import FarKeys
from posexp.transforms.rerope import rerope_reach
from posexp.windows import Far, at_least


class LeakyReRope(FarKeys):
    """Distances above `reach` tokens that grow k times as slowly: reach + (distance - reach) / k.

    `k` null is the smallest k for which no distance of an input counts as more than the training length. If `reach` is
    at least the training length, k is 1.
    """

    def __init__(self, dims: Dims, reach: int | None, k: float | None):
        super().__init__(dims)
        self.k = at_least("transform.k", k, 1)
        self.reach = rerope_reach(reach, dims.train_length)

    def slowdown(self, length: int) -> float:
        """Return k for inputs of at most `length` tokens."""
        room = self.dims.train_length - self.reach
        if self.k is not None or room <= 0:
            return self.k or 1.0
        return max(1.0, (length - self.reach) / room)

    def far(self, length: int) -> Far | None:
        k = self.slowdown(length)
        if k == 1:
            return None
        start = self.reach * (k - 1)
        return Far(self.reach, lambda index_T: (index_T + start) / k, lambda index_T: index_T / k)

    def describe(self, length: int) -> str:
        return f"leaky_rerope(reach={self.reach}, k={self.slowdown(length):g})"
