"""Attention sinks and the latest tokens (StreamingLLM). Xiao et al. 2023, arXiv 2309.17453, section 3.2.

Shape suffixes: Q query tokens, K key tokens.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.windows import Far, Window, at_least


class Sinks(Window):
    """A token sees the first `sinks` tokens and the latest ones, `size` in all; null: as many as in training.

    Positions are those within what is seen, as in the paper's cache: a sink is never further away than `size` - 1.
    """

    def __init__(self, dims: Dims, sinks: int, size: int | None):
        super().__init__(dims)
        self.sinks = at_least("window.sinks", sinks, 1)
        self.seen = at_least("window.size", dims.train_length if size is None else size, sinks + 1)
        self.recent = self.seen - sinks
        self.far = Far(self.recent - 1, self.last_place, lambda index_K: index_K)

    def last_place(self, index_Q: Tensor) -> Tensor:
        return index_Q.clamp(max=self.seen - 1)

    def earliest(self, query_Q: Tensor) -> Tensor:
        return (query_Q - self.recent + 1).clamp(min=0)

    def fingerprint(self) -> str:
        return f"sinks {self.sinks}+{self.recent}"
