"""Resonance RoPE. Wang et al. 2024, arXiv 2403.00071, section 4.

Formula: z(m, n) = (R_m q_m)·(R_n k_n) / √C
    R_m rotates pair i of channels by the angle 2π m / round(2π / θ_i), with θ_i = base^(-2i/C), for i = 0 .. C/2 - 1
Shape suffix: I rotated pairs of channels.
"""

import math

import torch
from torch import Tensor

from posexp.schemes.rope import Rope


def whole_wavelengths(theta_I: Tensor) -> Tensor:
    """Return the frequencies whose wavelengths, in tokens, are rounded to whole numbers."""
    return 2 * math.pi / (2 * math.pi / theta_I).round()


class Resonance(Rope):
    """RoPE whose pairs repeat after a whole number of tokens.

    The rotations of a pair that has turned once in training then recur at every later position. After a transform that
    rescales frequencies, the wavelengths of the result are rounded, as in the authors' code with YaRN
    (sheryc/resonance_rope, ResonanceYaRNScaledRotaryEmbedding).
    """

    def trained_frequencies(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        return whole_wavelengths(super().trained_frequencies(device, dtype))

    def frequencies(self, tokens: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        theta_I = super().trained_frequencies(device, dtype)
        return whole_wavelengths(theta_I if self.rescale is None else self.rescale(theta_I, tokens))

    def angles(self, pos_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        theta_I = self.frequencies(pos_BT.shape[1], pos_BT.device, dtype)
        # Whole turns are taken off before rounding, so that far rotations equal near ones exactly.
        return pos_BT.to(dtype)[..., None].remainder((2 * math.pi / theta_I).round()) * theta_I
