"""Extrapolatable rotary positions (xPos). Sun et al. 2022, arXiv 2212.10554, equation 11 and section 3.2.

Formula: z(m, n) = Σ_i zeta_i^(d/scale_base) (R_m q_m)_i·(R_n k_n)_i / √C, over pairs i = 0 .. C/2 - 1 of channels
    zeta_i = (2i/C + gamma) / (1 + gamma); R_m rotates pair i by the angle m base^(-2i/C)
Shape suffixes: B batch, T tokens, H heads, C channels of a head, I rotated pairs of channels.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import exact_type
from posexp.schemes.rope import Layout, Rope, rotate_pairs
from posexp.windows import at_least


def xpos_decay(
    rotary_dim: int, gamma: float, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the factor after scale_base tokens, [I]: zeta_i = (i / (rotary_dim/2) + gamma) / (1 + gamma)."""
    pairs_I = torch.arange(0, rotary_dim, 2, device=device, dtype=dtype)
    return (pairs_I / rotary_dim + gamma) / (1 + gamma)


class XPos(Rope):
    """RoPE whose queries are scaled by zeta_i^(p/scale_base) and keys by its inverse.

    The logit of each pair thus decays with distance. The paper's formula has no `scale_base`; the authors' code has
    512 (microsoft/torchscale, xpos_relative_position.py).
    """

    def __init__(
        self,
        dims: Dims,
        base: float,
        fraction: float,
        gamma: float,
        scale_base: float,
        layout: Layout = Layout.half,
    ):
        super().__init__(dims, base, fraction, layout)
        self.gamma = at_least("scheme.gamma", gamma, 0)
        if not scale_base > 0:
            raise Misuse(f"scheme.scale_base={scale_base} must be above 0")
        self.scale_base = scale_base

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        exact = exact_type(q_BHTC)
        angle_BTI = self.angles(pos_BT, exact)
        # Queries and keys share a centre, which cancels in their product and keeps both scales near 1 in the middle.
        centre_B1 = (pos_BT.amin(-1, keepdim=True) + pos_BT.amax(-1, keepdim=True)) // 2
        centred_BT1 = (pos_BT - centre_B1).to(exact)[..., None]
        scale_BTI = xpos_decay(self.rotary_dim, self.gamma, pos_BT.device, exact) ** (centred_BT1 / self.scale_base)
        return (
            rotate_pairs(q_BHTC, angle_BTI, self.magnitude * scale_BTI, self.layout),
            rotate_pairs(k_BHTC, angle_BTI, self.magnitude / scale_BTI, self.layout),
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gamma={self.gamma:g}, scale_base={self.scale_base:g}"

    def notes(self) -> list[str]:
        if 2 * self.scale_base == self.dims.train_length:
            return []
        return [
            f"xPos's scale_base={self.scale_base:g} belongs to a training length of {2 * self.scale_base:g} (its "
            f"paper: 512 at 1024), and this one is {self.dims.train_length}"
        ]
