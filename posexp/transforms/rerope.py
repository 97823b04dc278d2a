"""Rectified RoPE (ReRoPE). Su 2023, kexue.fm/archives/9708 and bojone/rerope.

Shape suffix: T tokens.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.transforms.far_keys import Elsewhere
from posexp.windows import Far, at_least


def rerope_reach(reach: int | None, train_length: int) -> int:
    """Null: a quarter of the training length, as the 1024 of Llama 2's 4096 in bojone/rerope's results."""
    return at_least("transform.reach", max(1, train_length // 4) if reach is None else reach, 1)


class ReRope(Elsewhere):
    """Distances above `reach` tokens count as `reach`. The repository's log-n scaling is a transform of its own."""

    def __init__(self, dims: Dims, reach: int | None):
        super().__init__(dims)
        self.reach = rerope_reach(reach, dims.train_length)

    def far(self, length: int) -> Far:
        return Far(self.reach, self.query, lambda index_T: index_T * 0)

    def query(self, index_T: Tensor) -> Tensor:
        return index_T * 0 + self.reach

    def describe(self, length: int) -> str:
        return f"rerope(reach={self.reach})"
