"""Attention with linear biases (ALiBi). Press et al. 2021, arXiv 2108.12409, section 3.

Formula: z(m, n) = q_m·k_n / √C - slope_h d
    slope_h = 2^(-8h/H), for heads h = 1 .. H and H a power of two
Shape suffixes: H heads, N distances.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme

STEEPEST = 0.5  # slope of the first of 8 heads, as in the smallest models of the paper


def alibi_slopes(n_head: int) -> list[float]:
    """Return the penalty per token of distance of each head, float64.

    Slopes are 2^(-8h/H) for h = 1..H where H is a power of two. For other H, the first slopes are those of the largest
    power of two below, the rest every other slope of twice that power (ofirpress/attention_with_linear_biases).
    """
    power = 1 << (n_head.bit_length() - 1)
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-8 * h / (2 * power)) for h in range(1, 2 * power + 1, 2)]
    return slopes + between[: n_head - power]


class Alibi(Scheme):
    """A penalty of slope * distance on the logit of a key, the same in every block.

    Slopes are fixed. With `learned`, slopes are parameters that start there (section 3 of the paper: learned slopes
    extrapolate worse). Only the first `share` of the heads have slopes, those of a model with that many
    heads. Raises Misuse unless `share` is above 0, at most 1, and gives at least one head a slope.
    """

    relative = True

    def __init__(self, dims: Dims, learned: bool = False, share: float = 1.0):
        super().__init__(dims)
        self.sloped = round(dims.n_head * share)
        if not 0 < share <= 1 or self.sloped == 0:
            raise Misuse(
                f"scheme.share={share} must be above 0, at most 1 and select one or more of {dims.n_head} heads"
            )
        # Fixed slopes cannot be a buffer: checkpoints older than the option `learned` have no such buffer.
        self.slope_H = nn.Parameter(torch.tensor(alibi_slopes(self.sloped))) if learned else None

    def distance_slopes(self, device: torch.device) -> Tensor:
        """Return the slopes of all heads, [H], in logits per token."""
        fixed_H = torch.tensor(alibi_slopes(self.sloped), dtype=torch.float32, device=device)
        return F.pad(fixed_H if self.slope_H is None else self.slope_H, (0, self.dims.n_head - self.sloped))

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        return -self.distance_slopes(gap_N.device)[:, None] * gap_N

    def extra_repr(self) -> str:
        slopes = alibi_slopes(self.sloped)
        learned = "" if self.slope_H is None else ", learned"
        heads = "" if self.sloped == self.dims.n_head else f", {self.sloped} of {self.dims.n_head} heads"
        return f"slopes={slopes[0]:g}..{slopes[-1]:g}{learned}{heads}"

    def notes(self) -> list[str]:
        steepest = alibi_slopes(self.sloped)[0]
        if steepest >= STEEPEST:
            return []
        return [f"ALiBi's steepest slope is {steepest:g} with {self.sloped} heads, and {STEEPEST:g} with its paper's 8"]
