"""Two schemes that alternate by block, such as RoPE and NoPE in RNoPE-SWA. Yang et al. 2025, arXiv 2501.18795.

Formula: other in blocks every, 2 every, 3 every ..; inner in all other blocks
Shape suffixes: B batch, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, inner_scheme
from posexp.schemes.wrapper import Composite
from posexp.windows import at_least


class Alternate(Composite):
    """A scheme that uses `other` in every `every`-th block and `inner` in the rest. Positions are those of `inner`.

    Raises Misuse for a scheme that acts on the embeddings, which all blocks share.
    """

    def __init__(self, dims: Dims, every: int, inner: Any, other: Any):
        super().__init__(dims)
        self.every = at_least("scheme.every", every, 1)
        self.inner, self.other = inner_scheme(inner, dims), inner_scheme(other, dims)
        for part in self.parts():
            x_BTD = torch.zeros(1, 1, dims.d_model)
            if part.embed(x_BTD, torch.zeros(1, 1, dtype=torch.int64)) is not x_BTD:
                raise Misuse(
                    f"{part.fingerprint()} cannot alternate: it acts on the embeddings, which all blocks share"
                )

    def parts(self) -> Sequence[Scheme]:
        return [self.inner, self.other]

    def layer(self, index: int) -> Scheme:
        return (self.other if (index + 1) % self.every == 0 else self.inner).layer(index)

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        return self.inner.positions(B, T, device)

    def notes(self) -> list[str]:
        if self.every <= self.dims.n_layer:
            return super().notes()
        return [f"no block has {self.other.fingerprint()}: there are {self.dims.n_layer}, and every={self.every}"]

    def fingerprint(self) -> str:
        return f"Alternate({self.inner.fingerprint()}, block {self.every} of {self.every} {self.other.fingerprint()})"
