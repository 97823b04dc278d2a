"""NTK-aware interpolation. bloc97 2023; Peng et al. 2023 (YaRN), arXiv 2309.00071, section 3.1.

Shape suffix: I rotated pairs of channels.
"""

from typing import Any

import torch
from torch import Tensor

from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable
from posexp.transforms.frequencies import Rescale, Stretched


def ntk_factors(
    pairs: int, factor: float, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the divisor of each frequency, [I], from 1 for the highest to `factor` for the lowest."""
    pair_I = torch.arange(pairs, device=device, dtype=dtype)
    return factor ** (pair_I / max(1, pairs - 1))


def ntk_frequencies(theta_I: Tensor, factor: float) -> Tensor:
    """Return [I]: theta_i / factor^(2i/(d-2)), d = 2I.

    The result equals the frequencies of base * factor^(d/(d-2)): for d = 64 and a factor of 4, 10000 becomes 41829.
    """
    return theta_I / ntk_factors(len(theta_I), factor, theta_I.device, theta_I.dtype)


def check_pairs(rotary_dim: int) -> None:
    """Raise NotApplicable for a single pair of channels, whose frequency does not change."""
    if rotary_dim == 2:
        raise NotApplicable("only one pair of channels is rotated, and ntk keeps the highest frequency")


class NtkAware(Stretched):
    """A larger base that interpolates the lowest frequency in full, and the highest not at all."""

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        check_pairs(rope.rotary_dim)
        factor = self.stretch(length, self.factor)
        return lambda theta_I, tokens: ntk_frequencies(theta_I, factor)

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        check_pairs(rotary_dim)
        found = self.rescaled(given, rope_type="default")
        stretched = self.stretch(length, self.factor) ** (rotary_dim / (rotary_dim - 2))
        return found | {"rope_theta": found["rope_theta"] * stretched}

    def describe(self, length: int) -> str:
        return f"ntk(factor={self.stretch(length, self.factor):g})"
