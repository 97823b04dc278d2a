"""Shifted absolute positions (SHAPE). Kiyono et al. 2021, arXiv 2109.05644, section 3.

Formula: p_t = t + s in training, with one s for each sequence, drawn from 0 .. most; p_t = t at evaluation
Shape suffixes: B batch, T tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes import inner_scheme
from posexp.schemes.wrapper import Wrapper
from posexp.windows import at_least


class Offset(Wrapper):
    """A shift of all positions of a training sequence by one random number from 0 to `most`.

    `most` null is the training length. The inner scheme is built for all positions that can occur.
    """

    def __init__(self, dims: Dims, most: int | None, inner: Any):
        most = at_least("scheme.most", dims.train_length if most is None else most, 0)
        super().__init__(dims, inner_scheme(inner, replace(dims, train_length=dims.train_length + most)))
        self.most = most

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        pos_BT = self.inner.positions(B, T, device)
        return pos_BT + torch.randint(self.most + 1, (B, 1), device=device) if self.training else pos_BT

    def extra_repr(self) -> str:
        return f"by 0 to {self.most}"
