"""Learned penalties by distance (KERPLE). Chi et al. 2022, arXiv 2205.09921; bounds and draws of chijames/KERPLE.

Shape suffixes: H heads, N distances.
"""

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import Scheme

LEAST = 0.01  # of every parameter


class Kerple(Scheme):
    """Two positive parameters per head, the same in all blocks, drawn uniformly between 0 and `widest`.

    One that a step takes out of bounds counts as the bound, and is put back before the next step: outside it would
    have no gradient to return by.
    """

    relative = True
    widest: tuple[float, float]
    most: float | None = None  # of r2

    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.r1_H, self.r2_H = (nn.Parameter(torch.rand(dims.n_head) * widest) for widest in self.widest)

    def bounded(self) -> tuple[Tensor, Tensor]:
        """r1 and r2 as the bias has them, [H, 1] each."""
        return self.r1_H.clamp(min=LEAST)[:, None], self.r2_H.clamp(min=LEAST, max=self.most)[:, None]

    @torch.no_grad()
    def progress(self, share: float) -> None:
        for parameter_H, bounded_H1 in zip((self.r1_H, self.r2_H), self.bounded(), strict=True):
            parameter_H.copy_(bounded_H1[:, 0])


class KerpleLog(Kerple):
    """Adds -r1 log(1 + r2 distance) to a logit: the logarithmic kernel."""

    widest = (2.0, 1.0)

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        r1_H1, r2_H1 = self.bounded()
        return -r1_H1 * torch.log1p(r2_H1 * gap_N)


class KerplePower(Kerple):
    """Adds -r1 distance^r2 to a logit, r2 at most 2: the power kernel."""

    widest = (1.0, 2.0)
    most = 2.0

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        r1_H1, r2_H1 = self.bounded()
        return -r1_H1 * gap_N**r2_H1  # not exp(r2 log distance): NaN is the gradient of that at distance 0
