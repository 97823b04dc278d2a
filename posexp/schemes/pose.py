"""Positional skip-wise training (PoSE). Zhu et al. 2023, arXiv 2309.10400, section 3.2, with two chunks.

Formula: p_t = t for t < c, and t + s from c on, in training; p_t = t at evaluation
    c is drawn from 1 .. L and s from 0 .. factor L - L, for each sequence of L tokens
Shape suffixes: B batch, T tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes import inner_scheme
from posexp.schemes.wrapper import Resampled
from posexp.windows import at_least


class Pose(Resampled):
    """A training sequence cut in two at random, with the second part shifted within `factor` training lengths.

    Short sequences thus contain distances up to the target length. At evaluation nothing is shifted. The inner scheme
    is built for the target length.
    """

    def __init__(self, dims: Dims, factor: float, inner: Any):
        at_least("scheme.factor", factor, 1)
        target = round(dims.train_length * factor)
        super().__init__(dims, inner_scheme(inner, replace(dims, train_length=target)))
        self.target = target

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        pos_BT = self.inner.positions(B, T, device)
        if not self.training:
            return pos_BT
        cut_B1 = torch.randint(1, T + 1, (B, 1), device=device)
        skip_B1 = torch.randint(max(0, self.target - T) + 1, (B, 1), device=device)
        return pos_BT + skip_B1 * (torch.arange(T, device=device) >= cut_B1)

    def extra_repr(self) -> str:
        return f"to {self.target}"

    def notes(self) -> list[str]:
        return [f"{type(self).__name__} has positions up to {self.target} in training", *super().notes()]
