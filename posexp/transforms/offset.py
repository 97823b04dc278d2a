"""The same text at later positions, a probe of translation invariance. Kiyono et al. 2021, arXiv 2109.05644.

Shape suffixes: B batch, T tokens.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes import Scheme
from posexp.schemes.wrapper import Wrapper
from posexp.transforms import NotApplicable, Transform
from posexp.windows import Window, at_least


class Later(Wrapper):
    """A wrapper that adds `by` to all positions, and subtracts `by` from `max_length`."""

    def __init__(self, dims: Dims, inner: Scheme, by: int):
        super().__init__(dims, inner)
        self.by = by
        if self.max_length is not None:
            self.max_length -= by

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        return self.inner.positions(B, T, device) + self.by

    def extra_repr(self) -> str:
        return f"by {self.by}"


class Offset(Transform):
    """A shift of all positions by `by`."""

    def __init__(self, dims: Dims, by: int):
        super().__init__(dims)
        self.by = at_least("transform.by", by, 0)

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        if not scheme.reads_positions:
            raise NotApplicable(f"{scheme.fingerprint()} reads no positions")
        if scheme.reads_text:
            raise NotApplicable(f"{scheme.fingerprint()} takes its positions from the text")
        if scheme.max_length is not None and scheme.max_length <= self.by:
            raise NotApplicable(
                f"{scheme.fingerprint()} ends at {scheme.max_length} tokens, before transform.by={self.by}"
            )
        return Later(self.dims, scheme, self.by), window

    def describe(self, length: int) -> str:
        return f"offset(by={self.by})"
