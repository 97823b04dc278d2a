"""A Λ-shaped mask with capped distance (LM-Infinite). Han et al. 2023, arXiv 2308.16137, section 4.

Shape suffix: Q query tokens.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.windows import Far, Window, at_least


class Lambda(Window):
    """A mask that shows the first `sinks` tokens and the latest `size`, with distances capped at `cap`.

    `size` and `cap` null are the training length.
    """

    def __init__(self, dims: Dims, sinks: int, size: int | None, cap: int | None):
        super().__init__(dims)
        self.sinks = at_least("window.sinks", sinks, 1)
        self.recent = at_least("window.size", dims.train_length if size is None else size, 1)
        self.cap = at_least("window.cap", dims.train_length if cap is None else cap, 1)
        self.far = Far(self.cap, self.capped, lambda index_K: index_K * 0)

    def capped(self, index_Q: Tensor) -> Tensor:
        return index_Q * 0 + self.cap

    def earliest(self, query_Q: Tensor) -> Tensor:
        return (query_Q - self.recent + 1).clamp(min=0)

    def fingerprint(self) -> str:
        return f"lambda {self.sinks}+{self.recent}, cap {self.cap}"
