"""Randomized positions. Ruoss et al. 2023, arXiv 2305.16843, section 3.

Formula: p_1 < p_2 < .. < p_T, drawn without replacement from 0 .. factor L - 1; L is the training length
    with floats, real numbers drawn from 0 to factor L
Shape suffixes: B batch, T tokens, P positions to draw from.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import inner_scheme
from posexp.schemes.wrapper import Resampled, promise
from posexp.windows import at_least


class Randomized(Resampled):
    """Random positions in ascending order, drawn from `factor` training lengths.

    The inner scheme is built for all positions to draw from. With `at_evaluation`, as in the authors' code, positions
    are drawn at evaluation too, and inputs cannot be longer than the number of positions.

    With `floats` (Random Float Sampling, Shimizu et al. 2026, arXiv 2602.14050) positions are real numbers from the
    same range, and inputs have any length that the inner scheme takes. Without `at_evaluation` the positions of
    evaluation are then spaced evenly: (i + 1/2) / max(training length, T) of the range. The paper's range is 1; here it
    is that of the integers.
    """

    def __init__(self, dims: Dims, factor: float, at_evaluation: bool, floats: bool = False, *, inner: Any):
        at_least("scheme.factor", factor, 1)
        count = round(dims.train_length * factor)
        super().__init__(dims, inner_scheme(inner, replace(dims, train_length=count)))
        self.count = count
        self.at_evaluation = at_evaluation
        self.floats = floats

    @promise
    def max_length(self) -> int | None:
        limit = self.inner.max_length
        return min(self.count, limit or self.count) if self.at_evaluation and not self.floats else limit

    @promise
    def prefix_stable(self) -> bool:
        return not self.at_evaluation and not self.floats and self.inner.prefix_stable

    def sampling(self) -> bool:
        return self.training or self.at_evaluation or self.floats

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        if not self.sampling():
            return self.inner.positions(B, T, device)
        if self.floats:
            if self.training or self.at_evaluation:
                return self.count * torch.rand(B, T, device=device).sort(dim=-1).values
            return self.count * (torch.arange(T, device=device)[None] + 0.5) / max(self.dims.train_length, T)
        if self.count < T:
            raise Misuse(f"scheme.factor allows {self.count} random positions, too few for {T} tokens")
        order_BP = torch.rand(B, self.count, device=device).argsort(dim=-1)  # T positions without replacement
        return order_BP[:, :T].sort(dim=-1).values

    def extra_repr(self) -> str:
        numbers = ", real numbers" if self.floats else ""
        return f"of {self.count}, {'always' if self.at_evaluation else 'in training'}{numbers}"

    def notes(self) -> list[str]:
        return [f"{type(self).__name__} has positions up to {self.count} in training", *super().notes()]
