"""Chunked attention. Llama 4; huggingface/transformers, models/llama4 and masking_utils.py.

Shape suffix: Q query tokens.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.windows import Window, share_of


class Chunked(Window):
    """A mask by chunks of the input: a token sees its own chunk up to itself, and nothing before it.

    `size` null is `share` of the training length.
    """

    def __init__(self, dims: Dims, size: int | None, share: float):
        super().__init__(dims)
        self.chunk = share_of(dims, size, share)

    def earliest(self, query_Q: Tensor) -> Tensor:
        return query_Q // self.chunk * self.chunk

    def fingerprint(self) -> str:
        return f"chunked {self.chunk}"
