"""A scheme around another one: hands every hook on to it, layer by layer.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, C channels of a head, D width of the
residual stream, N distances.
"""

import copy

import torch
from torch import Tensor

from posexp.schemes import Dims, Scheme, bias_between
from posexp.windows import Window


class Wrapper(Scheme):
    """Does what `inner` does and promises what it promises; a subclass changes one thing."""

    def __init__(self, dims: Dims, inner: Scheme):
        super().__init__(dims)
        self.inner = inner
        self.max_length = inner.max_length
        self.relative = inner.relative
        self.reads_positions = inner.reads_positions
        self.prefix_stable = inner.prefix_stable

    def layer(self, index: int) -> Scheme:
        part = self.inner.layer(index)
        return self if part is self.inner else self.around(part)

    def around(self, inner: Scheme) -> "Wrapper":
        """The same wrapper around another scheme."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "inner": inner}
        return twin

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        return self.inner.positions(B, T, device)

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return self.inner.embed(x_BTD, pos_BT)

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.rotate(q_BHTC, k_BHTC, pos_BT)

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        return self.inner.distance_bias(gap_N)

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        return self.inner.bias(pos_BQ, pos_BK)

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor | None:
        return self.inner.attend(q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)

    def progress(self, share: float) -> None:
        self.inner.progress(share)

    def fingerprint(self) -> str:
        own = ", ".join(part for part in (self.extra_repr(), self.inner.fingerprint()) if part)
        return f"{type(self).__name__}({own})"


class Resampled(Wrapper):
    """A wrapper that samples positions: while it does, distances are differences of positions, not of tokens."""

    def sampling(self) -> bool:
        return self.training

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        return None if self.sampling() else self.inner.distance_bias(gap_N)

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        return bias_between(self.inner, pos_BQ, pos_BK) if self.sampling() else self.inner.bias(pos_BQ, pos_BK)
