"""Attention sinks and the latest tokens (StreamingLLM). Xiao et al. 2023, arXiv 2309.17453, section 3.2.

Shape suffixes: Q query tokens, K key tokens.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.windows import Far, Window, at_least


class Sinks(Window):
    """A mask that shows the first `sinks` tokens and the latest ones, `size` in all.

    `size` null is the training length. Positions are counted among visible tokens, as in the paper's cache, so that a
    sink is at most `size` - 1 tokens away.
    """

    def __init__(self, dims: Dims, sinks: int, size: int | None):
        super().__init__(dims)
        self.sinks = at_least("window.sinks", sinks, 1)
        self.total = at_least("window.size", dims.train_length if size is None else size, sinks + 1)
        self.recent = self.total - sinks
        self.far = Far(self.recent - 1, self.last_position, lambda index_K: index_K)

    def last_position(self, index_Q: Tensor) -> Tensor:
        return index_Q.clamp(max=self.total - 1)

    def earliest(self, query_Q: Tensor) -> Tensor:
        return (query_Q - self.recent + 1).clamp(min=0)

    def fingerprint(self) -> str:
        return f"sinks {self.sinks}+{self.recent}"
