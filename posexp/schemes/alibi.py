"""Attention with linear biases (ALiBi). Press et al. 2021, arXiv 2108.12409, section 3.

Shape suffixes: H heads (those with a slope, where it says so), N distances.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
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
    """Lowers the logit of a key by slope * distance, in every block alike.

    Slopes are fixed, or with `learned` only start there (the paper's section 3: learned ones extrapolate worse).
    The first `share` of the heads have slopes, those that a model of so many heads would have; the others see all
    distances alike. Raises Misuse for a share that is not above 0 and up to 1, or that leaves no head a slope.
    """

    relative = True

    def __init__(self, dims: Dims, learned: bool = False, share: float = 1.0):
        super().__init__(dims)
        self.sloped = round(dims.n_head * share)
        if not 0 < share <= 1 or self.sloped == 0:
            raise Misuse(f"scheme.share={share} gives no head a slope: it is a share of the {dims.n_head} heads")
        # Fixed slopes are no buffer: checkpoints from before slopes could be learned hold none.
        self.slope_H = nn.Parameter(torch.tensor(alibi_slopes(self.sloped))) if learned else None

    def slopes(self, device: torch.device) -> Tensor:
        """[H] of all heads, in logits per token."""
        fixed_H = torch.tensor(alibi_slopes(self.sloped), dtype=torch.float32, device=device)
        return F.pad(fixed_H if self.slope_H is None else self.slope_H, (0, self.dims.n_head - self.sloped))

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        return -self.slopes(gap_N.device)[:, None] * gap_N

    def extra_repr(self) -> str:
        slopes = alibi_slopes(self.sloped)
        learned = "" if self.slope_H is None else ", learned"
        heads = "" if self.sloped == self.dims.n_head else f", {self.sloped} of {self.dims.n_head} heads"
        return f"slopes={slopes[0]:g}..{slopes[-1]:g}{learned}{heads}"
