"""Learned penalties by distance (KERPLE). Chi et al. 2022, arXiv 2205.09921; bounds and starts of chijames/KERPLE.

Formula: z(m, n) = q_m·k_n / √C - r1 log(1 + r2 d) (kerple_log)
    z(m, n) = q_m·k_n / √C - r1 d^r2 (kerple_power)
    r1 and r2 are trained, positive, one pair for every head
Shape suffixes: H heads, N distances.
"""

from enum import Enum

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import Scheme

MIN_PARAMETER = 0.01


class Init(Enum):
    """The initial parameters: drawn at random, or fixed at the mean of the draws."""

    random = "random"
    fixed = "fixed"


class Kerple(Scheme):
    """Two positive parameters per head, shared by all blocks, drawn uniformly between 0 and `widest`.

    With `init=fixed` all heads start at half of `widest`, the mean of the draws. The bias uses parameters clamped to
    their bounds. Before every step the parameters themselves are clamped too, since a parameter out of bounds has no
    gradient.
    """

    relative = True
    max_r2: float | None = None

    def __init__(self, dims: Dims, widest: tuple[float, float], init: Init):
        super().__init__(dims)
        self.init = init
        starts = [torch.full((dims.n_head,), 0.5) if init is Init.fixed else torch.rand(dims.n_head) for _ in widest]
        self.r1_H, self.r2_H = (nn.Parameter(part * most) for part, most in zip(starts, widest, strict=True))

    def bounded(self) -> tuple[Tensor, Tensor]:
        """Return r1 and r2 within their bounds, [H, 1] each."""
        return self.r1_H.clamp(min=MIN_PARAMETER)[:, None], self.r2_H.clamp(min=MIN_PARAMETER, max=self.max_r2)[:, None]

    @torch.no_grad()
    def progress(self, share: float) -> None:
        for parameter_H, bounded_H1 in zip((self.r1_H, self.r2_H), self.bounded(), strict=True):
            parameter_H.copy_(bounded_H1[:, 0])

    def extra_repr(self) -> str:
        return "" if self.init is Init.random else f"init={self.init.value}"


class KerpleLog(Kerple):
    """The logarithmic kernel: a bias of -r1 log(1 + r2 distance)."""

    def __init__(self, dims: Dims, init: Init = Init.random):
        super().__init__(dims, (2.0, 1.0), init)

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        r1_H1, r2_H1 = self.bounded()
        return -r1_H1 * torch.log1p(r2_H1 * gap_N)


class KerplePower(Kerple):
    """The power kernel: a bias of -r1 distance^r2, with r2 at most 2."""

    max_r2 = 2.0

    def __init__(self, dims: Dims, init: Init = Init.random):
        super().__init__(dims, (1.0, 2.0), init)

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        r1_H1, r2_H1 = self.bounded()
        return -r1_H1 * gap_N**r2_H1  # exp(r2 log distance) has a NaN gradient at distance 0
