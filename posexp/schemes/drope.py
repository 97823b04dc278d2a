"""Positions that are dropped before training ends (DroPE). Gelberg et al. 2025, arXiv 2512.12167.

Formula: the inner scheme while step < keep steps; after that z(m, n) = q_m·k_n / √C
Shape suffixes: B batch, T tokens.
"""

from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, inner_scheme
from posexp.schemes.none import NoPositions
from posexp.schemes.wrapper import Wrapper


class Drope(Wrapper):
    """The inner scheme for the first share `keep` of training, and no positions after that."""

    def __init__(self, dims: Dims, keep: float, inner: Any):
        if not 0 <= keep <= 1:
            raise Misuse(f"scheme.keep={keep} must be from 0 to 1, a share of training")
        super().__init__(dims, inner_scheme(inner, dims))
        self.keep = keep
        self.dropped = False
        self.none = NoPositions(dims)

    @property
    def acting(self) -> Scheme:
        return self.none if self.dropped else self.inner

    def progress(self, share: float) -> None:
        self.inner.progress(share)
        self.dropped = share >= self.keep

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        # In training, random positions are drawn even when unused, so that dropout draws the same numbers.
        return (self.inner if self.training else self.acting).positions(B, T, device)

    def extra_repr(self) -> str:
        return f"after {self.keep:g} of training"
