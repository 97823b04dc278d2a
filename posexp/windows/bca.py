"""Blockwise causal attention (BCA). Sun et al. 2022 (xPos), arXiv 2212.10554, section 3.3.

Shape suffix: Q query tokens.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.windows import Window, at_least


class BlockwiseCausal(Window):
    """A mask by blocks of tokens: a token sees its own block up to itself, and the block before.

    `block` null is half the training length, so that no distance is longer than in training.
    """

    def __init__(self, dims: Dims, block: int | None):
        super().__init__(dims)
        self.block = at_least("window.block", max(1, dims.train_length // 2) if block is None else block, 1)

    def earliest(self, query_Q: Tensor) -> Tensor:
        return (query_Q // self.block - 1).clamp(min=0) * self.block

    def fingerprint(self) -> str:
        return f"bca {self.block}"
