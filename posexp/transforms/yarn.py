"""YaRN. Peng et al. 2023, arXiv 2309.00071, sections 3.2 and 3.4; constants of jquesnelle/yarn.

Shape suffix: I rotated pairs of channels.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable
from posexp.transforms.frequencies import Rescale, Stretched
from posexp.windows import at_least


def yarn_ramp(
    rotary_dim: int, base: float, train_length: int, beta_fast: float, beta_slow: float, truncate: bool = True
) -> tuple[float, float]:
    """Return the first pair that is interpolated in part, and the first in full.

    Pair c(r) = d ln(L / (2 pi r)) / (2 ln base) turns r times in training. The results are c(beta_fast) and
    c(beta_slow), rounded down and up with `truncate`.
    """

    def pair(turns: float) -> float:
        return rotary_dim * math.log(train_length / (2 * math.pi * turns)) / (2 * math.log(base))

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, rotary_dim - 1)


def yarn_frequencies(
    theta_I: Tensor,
    base: float,
    train_length: int,
    factor: float,
    beta_fast: float,
    beta_slow: float,
    truncate: bool = True,
) -> Tensor:
    """Return [I]: theta for pairs that turn often in training, theta / factor for slow pairs, a line between."""
    low, high = yarn_ramp(2 * len(theta_I), base, train_length, beta_fast, beta_slow, truncate)
    pair_I = torch.arange(len(theta_I), device=theta_I.device, dtype=theta_I.dtype)
    interpolated_I = ((pair_I - low) / max(high - low, 0.001)).clamp(0, 1)  # 0.001: a step if low = high
    return torch.lerp(theta_I, theta_I / factor, interpolated_I)


def yarn_attention_factor(factor: float) -> float:
    """Return 0.1 ln factor + 1, the factor of cosines and sines; logits get its square (section 3.4)."""
    return 0.1 * math.log(factor) + 1


class Yarn(Stretched):
    """Interpolated low frequencies, unchanged high frequencies, and sharper attention.

    `beta_fast` and `beta_slow` are turns within the training length. A pair with more than `beta_fast` turns does not
    change, and a pair with fewer than `beta_slow` is interpolated in full. `truncate` rounds both bounds outwards to
    whole pairs, as the authors do and gpt-oss does not. Raises NotApplicable for a base of 1 or less.
    """

    def __init__(self, dims: Dims, factor: float | None, beta_fast: float, beta_slow: float, truncate: bool):
        super().__init__(dims, factor)
        self.beta_slow = at_least("transform.beta_slow", beta_slow, 0.001)
        self.beta_fast = at_least("transform.beta_fast", beta_fast, beta_slow)
        self.truncate = truncate

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        if rope.base <= 1:
            raise NotApplicable(f"{rope.fingerprint()} has no high and low frequencies: yarn needs a base above 1")
        factor, betas = self.stretch(length, self.factor), (self.beta_fast, self.beta_slow)
        known = (rope.base, self.dims.train_length, factor, *betas, self.truncate)
        return lambda theta_I, tokens: yarn_frequencies(theta_I, *known)

    def attention_factor(self, length: int) -> float:
        return yarn_attention_factor(self.stretch(length, self.factor))

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        return self.rescaled(
            given,
            rope_type="yarn",
            factor=self.stretch(length, self.factor),
            original_max_position_embeddings=self.dims.train_length,
            attention_factor=self.attention_factor(length),
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
            truncate=self.truncate,
        )

    def describe(self, length: int) -> str:
        factor = self.stretch(length, self.factor)
        bounds = "" if self.truncate else ", truncate=False"  # the default is omitted: rows are found by this text
        return f"yarn(factor={factor:g}, beta_fast={self.beta_fast:g}, beta_slow={self.beta_slow:g}{bounds})"
