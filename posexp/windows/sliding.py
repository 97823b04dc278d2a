"""Sliding windows: the latest tokens alone. Beltagy et al. 2020, arXiv 2004.05150, section 3.1."""

from posexp.dims import Dims
from posexp.windows import Window, at_least


class Sliding(Window):
    """A mask that shows the latest `size` tokens, the token itself included. `size` null is the training length."""

    def __init__(self, dims: Dims, size: int | None):
        super().__init__(dims)
        self.size = at_least("window.size", dims.train_length if size is None else size, 1)

    def fingerprint(self) -> str:
        return f"sliding {self.size}"
