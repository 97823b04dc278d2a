"""Sliding windows: the latest tokens alone. Beltagy et al. 2020, arXiv 2004.05150, section 3.1."""

from posexp.dims import Dims
from posexp.windows import Window, share_of


class Sliding(Window):
    """A mask that shows the latest `size` tokens, the token itself included.

    `size` null is `share` of the training length.
    """

    def __init__(self, dims: Dims, size: int | None, share: float = 1.0):
        super().__init__(dims)
        self.size = share_of(dims, size, share)

    def fingerprint(self) -> str:
        return f"sliding {self.size}"
