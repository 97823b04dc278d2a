"""The frequencies of Llama 3.1. Llama Team 2024, arXiv 2407.21783; formula of meta-llama/llama-models.

Shape suffix: I rotated pairs of channels.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable
from posexp.transforms.frequencies import Rescale, Stretched


def llama3_frequencies(theta_I: Tensor, train_length: int, factor: float, low: float, high: float) -> Tensor:
    """Return [I]: theta / factor for wavelengths above train_length / low, theta below train_length / high.

    Between the two, frequencies are interpolated linearly in the number of turns within the training length.
    """
    turns_I = train_length * theta_I / (2 * math.pi)
    kept_I = ((turns_I - low) / (high - low)).clamp(0, 1)
    return torch.lerp(theta_I / factor, theta_I, kept_I)


class Llama3(Stretched):
    """Interpolation of pairs that turn less than `low` times in training, and none of pairs above `high` turns."""

    def __init__(self, dims: Dims, factor: float | None, low: float, high: float):
        super().__init__(dims, factor)
        if not 0 <= low < high:
            raise Misuse(f"transform.low={low:g} must be at least 0 and below transform.high={high:g}")
        self.low = low
        self.high = high

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        known = (self.dims.train_length, self.stretch(length, self.factor), self.low, self.high)
        return lambda theta_I, tokens: llama3_frequencies(theta_I, *known)

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        if self.low == 0:
            raise NotApplicable("transform.low must be above 0 in transformers, which divides by it")
        return self.rescaled(
            given,
            rope_type="llama3",
            factor=self.stretch(length, self.factor),
            original_max_position_embeddings=self.dims.train_length,
            low_freq_factor=self.low,
            high_freq_factor=self.high,
        )

    def describe(self, length: int) -> str:
        return f"llama3(factor={self.stretch(length, self.factor):g}, low={self.low:g}, high={self.high:g})"
