"""Windows that alternate by layer. Gemma Team 2024, arXiv 2408.00118; Yang et al. 2025 (RNoPE-SWA), 2501.18795."""

from typing import Any

from posexp.dims import Dims
from posexp.windows import Window, at_least, from_config


class Alternate(Window):
    """A full mask in every `every`-th block, and `inner` in the others."""

    def __init__(self, dims: Dims, every: int, inner: Any):
        super().__init__(dims)
        self.every = at_least("window.every", every, 1)
        self.inner = from_config(inner, dims)
        self.open = Window(dims)

    def layer(self, index: int) -> Window:
        return self.open if (index + 1) % self.every == 0 else self.inner.layer(index)

    def fingerprint(self) -> str:
        return f"{self.inner.fingerprint()}, every {self.every}th full"
