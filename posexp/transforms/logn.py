"""Log-n attention scaling. Su 2021, kexue.fm/archives/8823; Chiang and Cholak 2022, arXiv 2202.12172, section 5.3.

Shape suffixes: B batch, T tokens, H heads, C channels of a head.
"""

import math

import torch
from torch import Tensor

from posexp import windows
from posexp.dims import Dims
from posexp.schemes import Scheme, exact_type
from posexp.schemes.wrapper import Wrapper
from posexp.transforms import Transform
from posexp.windows import Window


def logn_factors(tokens: int, train_length: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return [T]: max(1, ln n / ln train_length) for queries that see n = 1, 2, ... tokens."""
    seen_T = torch.arange(1, tokens + 1, device=device, dtype=dtype)
    return (seen_T.log() / math.log(train_length)).clamp(min=1)


class LogN(Wrapper):
    """A wrapper that multiplies each query, since a term added to all logits would cancel in the softmax.

    n counts tokens of the input, not positions. With `Window.far`, near and far logits get the same factor.
    """

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        q_BHTC, k_BHTC = self.inner.rotate(q_BHTC, k_BHTC, pos_BT)
        factor_T = logn_factors(q_BHTC.shape[2], self.dims.train_length, q_BHTC.device, exact_type(q_BHTC))
        return (q_BHTC * factor_T[:, None]).type_as(q_BHTC), k_BHTC


class LogNScaling(Transform):
    """Attention that sharpens as inputs grow beyond the training length, for every scheme."""

    def __init__(self, dims: Dims):
        super().__init__(dims)
        windows.at_least("train.length", dims.train_length, 2)  # its logarithm divides

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        return LogN(self.dims, scheme), window

    def describe(self, length: int) -> str:
        return f"logn(from={self.dims.train_length})"
