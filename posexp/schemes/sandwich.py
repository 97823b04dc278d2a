"""The inner product of sinusoidal positions as a bias (Sandwich). Chi et al. 2022, arXiv 2212.10356, section 5.

Formula: z(m, n) = q_m·k_n / √C + (Σ_i cos(d 10000^(-2i/C)) - C/2) H / 8h, for i = 1 .. C/2 and heads h = 1 .. H
Shape suffixes: H heads, N distances, I frequencies.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme


class Sandwich(Scheme):
    """A bias (sum_i cos(distance * 10000^(-2i/C)) - C/2) * H / 8h in head h, with i from 1 to C/2 and h from 1 to H.

    The scheme has no parameters. The sum falls about as the logarithm of distance, most slowly in the last head. C is
    the width of a head and i starts at 1, without the fastest sinusoidal frequency, both as in NVIDIA/NeMo. The paper
    uses a width of 128 for any head. Raises Misuse for an odd C.
    """

    relative = True

    def __init__(self, dims: Dims):
        super().__init__(dims)
        if dims.head_dim % 2:
            raise Misuse(
                f"sandwich needs pairs of channels: a head's {dims.head_dim} (model.d_model / model.n_head) is odd"
            )

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        C, H, device = self.dims.head_dim, self.dims.n_head, gap_N.device
        frequency_I = 10000.0 ** (-torch.arange(2, C + 2, 2, device=device, dtype=torch.float64) / C)
        # In float32 the rounding errors of many cosines of large angles would blur neighbouring distances.
        fall_N = ((gap_N[:, None] * frequency_I).cos() - 1).sum(-1)
        ratio_H = torch.arange(1, H + 1, device=device) * 8 / H
        return (fall_N / ratio_H[:, None]).float()

    def extra_repr(self) -> str:
        return f"frequencies={self.dims.head_dim // 2}"
