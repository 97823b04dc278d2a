"""Position interpolation (PI). Chen et al. 2023, arXiv 2306.15595, equation 4.

Shape suffix: I rotated pairs of channels.
"""

from typing import Any

from torch import Tensor

from posexp.schemes.rope import Rope
from posexp.transforms.frequencies import Rescale, Stretched


def pi_frequencies(theta_I: Tensor, factor: float) -> Tensor:
    """Return [I]: theta / factor, so that `factor` times as many positions span the angles of training."""
    return theta_I / factor


class PositionInterpolation(Stretched):
    """All positions squeezed into the range of training."""

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        factor = self.stretch(length, self.factor)
        return lambda theta_I, tokens: pi_frequencies(theta_I, factor)

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        return self.rescaled(given, rope_type="linear", factor=self.stretch(length, self.factor))

    def describe(self, length: int) -> str:
        return f"pi(factor={self.stretch(length, self.factor):g})"
