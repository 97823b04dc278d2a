"""Schemes with something wrong, as a user's own may have."""

import torch
from torch import Tensor

from posexp.schemes.rope import Rope


class Poison(Rope):
    """Makes NaN of every batch from the middle of training on."""

    share = 0.0

    def progress(self, share: float) -> None:
        self.share = share

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        q_BHTC, k_BHTC = super().rotate(q_BHTC, k_BHTC, positions)
        return (q_BHTC * float("nan") if self.share >= 0.5 else q_BHTC), k_BHTC


class Compiled(Rope):
    """Compiles a little something in the first step, which takes seconds."""

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        q_BHTC, k_BHTC = super().rotate(q_BHTC, k_BHTC, positions)
        return q_BHTC + 0 * something(q_BHTC), k_BHTC


@torch.compile
def something(x: Tensor) -> Tensor:
    return torch.nn.functional.softmax(torch.sin(x) * torch.cos(x), dim=-1)
