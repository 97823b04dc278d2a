"""Sinusoidal absolute positions, added to the embeddings. Vaswani et al. 2017, arXiv 1706.03762, section 3.5.

Formula: x_p[2i] + sin(p / base^(2i/D)) and x_p[2i+1] + cos(p / base^(2i/D)), for i = 0 .. D/2 - 1
Shape suffixes: B batch, T tokens, D width of the residual stream, I pairs of channels.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, exact_type


class Sinusoidal(Scheme):
    """The encoding PE(p, 2i) = sin(p / base^(2i/D)), PE(p, 2i+1) = cos(p / base^(2i/D)), added to the embeddings."""

    def __init__(self, dims: Dims, base: float):
        super().__init__(dims)
        if dims.d_model % 2:
            raise Misuse(f"sinusoidal positions need an even model.d_model, got {dims.d_model}")
        if not base > 0:
            raise Misuse(f"scheme.base={base} must be above 0")
        self.base = base

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return x_BTD + self.encode(pos_BT, exact_type(x_BTD)).type_as(x_BTD)

    def encode(self, pos_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the encoding, [B, T, D], with sines and cosines alternating along D."""
        pairs_I = torch.arange(0, self.dims.d_model, 2, device=pos_BT.device, dtype=dtype)
        angle_BTI = pos_BT.to(dtype)[..., None] * self.base ** (-pairs_I / self.dims.d_model)
        return torch.stack((angle_BTI.sin(), angle_BTI.cos()), dim=-1).flatten(-2)
