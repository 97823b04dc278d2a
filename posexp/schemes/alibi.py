"""Attention with linear biases (ALiBi). Press et al. 2021, arXiv 2108.12409, section 3.

Shape suffixes: H heads, N distances.
"""

import torch
from torch import Tensor

from posexp.schemes import Scheme


def alibi_slopes(n_head: int) -> list[float]:
    """The penalty per token of distance of each head, float64.

    2^(-8h/H) for h = 1..H where H is a power of two; otherwise those of the largest power of two
    below, then every other slope of twice that (ofirpress/attention_with_linear_biases).
    """
    power = 1 << (n_head.bit_length() - 1)
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-8 * h / (2 * power)) for h in range(1, 2 * power + 1, 2)]
    return slopes + between[: n_head - power]


class Alibi(Scheme):
    """Lowers the logit of a key by slope * distance; the slopes are fixed, and the same in every block."""

    relative = True

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        slope_H = torch.tensor(alibi_slopes(self.dims.n_head), dtype=torch.float32, device=gap_N.device)
        return -slope_H[:, None] * gap_N

    def extra_repr(self) -> str:
        slopes = alibi_slopes(self.dims.n_head)
        return f"slopes={slopes[0]:g}..{slopes[-1]:g}"
