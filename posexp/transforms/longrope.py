"""LongRoPE: one factor for each frequency. Ding et al. 2024, arXiv 2402.13753, section 3; as in Phi-3.

Shape suffix: I rotated pairs of channels.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes.rope import Rope
from posexp.transforms.frequencies import Rescale, Stretched
from posexp.transforms.ntk import ntk_factors
from posexp.windows import at_least


def longrope_frequencies(theta_I: Tensor, factors_I: Tensor) -> Tensor:
    """Return [I]: theta_i / factor_i."""
    return theta_I / factors_I


def longrope_attention_factor(factor: float, train_length: int) -> float:
    """Return sqrt(1 + ln factor / ln train_length), the factor of cosines and sines."""
    return math.sqrt(1 + math.log(factor) / math.log(train_length))


class LongRope(Stretched):
    """A division of each frequency by its own factor: `short` in inputs within the training length, `long` beyond.

    `short` null is 1. `long` null is the NTK-aware factors; the authors search for factors from such a start. The
    output at a position thus depends on whether the input is longer than in training.
    """

    counts_tokens = True

    def __init__(self, dims: Dims, factor: float | None, short: list[float] | None, long: list[float] | None):
        super().__init__(dims, factor)
        at_least("train.length", dims.train_length, 2)  # its logarithm divides
        for name, given in (("short", short), ("long", long)):
            if given is not None:
                at_least(f"transform.{name}", min(given, default=0), 0.001)
        self.short = short
        self.long = long

    def unchanged(self, length: int) -> bool:
        return super().unchanged(length) and self.short is None and self.long is None

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        short, long = self.factors(rope.rotary_dim // 2, length)

        def rescaled(theta_I: Tensor, tokens: int) -> Tensor:
            factors = short if tokens <= self.dims.train_length else long
            return longrope_frequencies(theta_I, torch.tensor(factors, device=theta_I.device, dtype=theta_I.dtype))

        return rescaled

    def factors(self, pairs: int, length: int) -> tuple[list[float], list[float]]:
        """Return the factors for short and for long inputs. Raises Misuse unless there is one per frequency."""
        for name, given in (("short", self.short), ("long", self.long)):
            if given is not None and len(given) != pairs:
                raise Misuse(f"transform.{name} must have {pairs} factors, one per rotary frequency, got {len(given)}")
        long = self.long or ntk_factors(pairs, self.stretch(length, self.factor), dtype=torch.float64).tolist()
        return self.short or [1.0] * pairs, long

    def attention_factor(self, length: int) -> float:
        return longrope_attention_factor(self.stretch(length, self.factor), self.dims.train_length)

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        short, long = self.factors(rotary_dim // 2, length)
        return self.rescaled(
            given,
            rope_type="longrope",
            factor=self.stretch(length, self.factor),
            original_max_position_embeddings=self.dims.train_length,
            attention_factor=self.attention_factor(length),
            short_factor=short,
            long_factor=long,
        )

    def describe(self, length: int) -> str:
        short, long = ("given" if given else usual for given, usual in ((self.short, "1"), (self.long, "ntk")))
        return f"longrope(factor={self.stretch(length, self.factor):g}, short={short}, long={long})"
