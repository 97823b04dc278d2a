"""Learned penalties by distance (KERPLE). Chi et al. 2022, arXiv 2205.09921; bounds and starts of chijames/KERPLE.

Shape suffixes: H heads, N distances.
"""

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import Scheme

MIN_PARAMETER = 0.01


class Kerple(Scheme):
    """Two positive parameters per head, shared by all blocks, drawn uniformly between 0 and `widest`.

    The bias uses parameters clamped to their bounds. Before every step the parameters themselves are clamped too, since
    a parameter out of bounds has no gradient.
    """

    relative = True
    widest: tuple[float, float]
    max_r2: float | None = None

    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.r1_H, self.r2_H = (nn.Parameter(torch.rand(dims.n_head) * widest) for widest in self.widest)

    def bounded(self) -> tuple[Tensor, Tensor]:
        """Return r1 and r2 within their bounds, [H, 1] each."""
        return self.r1_H.clamp(min=MIN_PARAMETER)[:, None], self.r2_H.clamp(min=MIN_PARAMETER, max=self.max_r2)[:, None]

    @torch.no_grad()
    def progress(self, share: float) -> None:
        for parameter_H, bounded_H1 in zip((self.r1_H, self.r2_H), self.bounded(), strict=True):
            parameter_H.copy_(bounded_H1[:, 0])


class KerpleLog(Kerple):
    """The logarithmic kernel: a bias of -r1 log(1 + r2 distance)."""

    widest = (2.0, 1.0)

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        r1_H1, r2_H1 = self.bounded()
        return -r1_H1 * torch.log1p(r2_H1 * gap_N)


class KerplePower(Kerple):
    """The power kernel: a bias of -r1 distance^r2, with r2 at most 2."""

    widest = (1.0, 2.0)
    max_r2 = 2.0

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        r1_H1, r2_H1 = self.bounded()
        return -r1_H1 * gap_N**r2_H1  # exp(r2 log distance) has a NaN gradient at distance 0
