"""Rotary positions (RoPE). Su et al. 2021, arXiv 2104.09864, equation 15.

Shape suffixes: B batch, T tokens, H heads, C channels of a head, I rotated pairs of channels.
"""

import torch
from torch import Tensor

from posexp.errors import Misuse
from posexp.schemes import Dims, Scheme


def rotary_frequencies(rotary_dim: int, base: float, device: torch.device | None = None) -> Tensor:
    """[I] float32, radians per token: base^(-2i/rotary_dim) for each of the rotary_dim/2 pairs."""
    pairs_I = torch.arange(0, rotary_dim, 2, device=device, dtype=torch.float32)
    return base ** (-pairs_I / rotary_dim)


def rotate_pairs(x_BHTC: Tensor, angle_BTI: Tensor, scale_BTI: Tensor | None = None) -> Tensor:
    """Turns channels (i, i + I) of the first 2I channels by `angle_BTI` (float32), the rest untouched.

    This is the half-split layout; the interleaved one is the same up to a permutation of channels.
    `scale_BTI` lengthens each pair as it is turned. Computed in float32, returned in the type of x.
    """
    I = angle_BTI.shape[-1]
    cos_BTI, sin_BTI = angle_BTI.cos(), angle_BTI.sin()
    if scale_BTI is not None:
        cos_BTI, sin_BTI = cos_BTI * scale_BTI, sin_BTI * scale_BTI
    cos_B1TI, sin_B1TI = cos_BTI[:, None], sin_BTI[:, None]
    a_BHTI, b_BHTI = x_BHTC[..., :I].float(), x_BHTC[..., I : 2 * I].float()
    turned = (a_BHTI * cos_B1TI - b_BHTI * sin_B1TI, a_BHTI * sin_B1TI + b_BHTI * cos_B1TI)
    return torch.cat([half.type_as(x_BHTC) for half in turned] + [x_BHTC[..., 2 * I :]], dim=-1)


class Rope(Scheme):
    """Turns pair i of queries and keys by position * base^(-2i/rotary_dim), in every block.

    `fraction` of each head's channels are rotated (GPT-J, NeoX and Pythia: a quarter); frequencies are
    spaced over the rotated channels.
    """

    relative = True

    def __init__(self, dims: Dims, base: float, fraction: float):
        super().__init__(dims)
        self.base = base
        self.fraction = fraction
        self.rotary_dim = round(dims.head_dim * fraction)
        if not 0 < fraction <= 1 or self.rotary_dim == 0:
            raise Misuse(
                f"scheme.fraction={fraction} leaves nothing to rotate: it is a share of the {dims.head_dim} channels"
            )
        if self.rotary_dim % 2:
            raise Misuse(
                f"rotary positions turn pairs of channels: {self.rotary_dim} of a head's {dims.head_dim} "
                "(model.d_model / model.n_head * scheme.fraction) is odd"
            )

    def angles(self, pos_BT: Tensor) -> Tensor:
        """[B, T, I] float32, in radians."""
        return pos_BT.float()[..., None] * rotary_frequencies(self.rotary_dim, self.base, pos_BT.device)

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        angle_BTI = self.angles(pos_BT)
        return rotate_pairs(q_BHTC, angle_BTI), rotate_pairs(k_BHTC, angle_BTI)

    def extra_repr(self) -> str:
        return f"base={self.base:g}, rotary_dim={self.rotary_dim} of {self.dims.head_dim}"
