"""Rectified RoPE (ReRoPE). Su 2023, kexue.fm/archives/9708 and bojone/rerope.

Shape suffix: T tokens.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.transforms.far_keys import FarKeys
from posexp.windows import Far, at_least


def rerope_reach(reach: int | None, train_length: int) -> int:
    """Return `reach`, or for None a quarter of the training length, as 1024 for Llama 2's 4096 in bojone/rerope."""
    return at_least("transform.reach", max(1, train_length // 4) if reach is None else reach, 1)


class ReRope(FarKeys):
    """Distances capped at `reach` tokens. The log-n scaling of bojone/rerope is another transform (logn)."""

    def __init__(self, dims: Dims, reach: int | None):
        super().__init__(dims)
        self.reach = rerope_reach(reach, dims.train_length)

    def far(self, length: int) -> Far:
        return Far(self.reach, self.query, lambda index_T: index_T * 0)

    def query(self, index_T: Tensor) -> Tensor:
        return index_T * 0 + self.reach

    def describe(self, length: int) -> str:
        return f"rerope(reach={self.reach})"
