"""RoPE without its lowest frequencies (p-RoPE). Barbero et al. 2024, arXiv 2410.06205, section 6.1.

Formula: z(m, n) = (R_m q_m)·(R_n k_n) / √C
    R_m rotates pair i of channels by the angle m base^(-2i/C) if i < floor(p C/2), and not at all otherwise
Shape suffix: I rotated pairs of channels.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes.rope import Layout, Rope


def kept_pairs(p: float, pairs: int) -> int:
    """Return the share `p` of `pairs`, rounded down. Raises Misuse if no pair remains or `p` is above 1."""
    kept = int(p * pairs)
    if not 0 < kept <= pairs:
        raise Misuse(f"p={p:g} keeps {kept} of {pairs} frequencies: p must be at most 1 and keep at least one")
    return kept


def highest_frequencies(theta_I: Tensor, p: float) -> Tensor:
    """Return [I]: the share `p` of highest frequencies, then zeros. `theta_I` must be descending."""
    kept = kept_pairs(p, len(theta_I))
    return torch.cat((theta_I[:kept], torch.zeros_like(theta_I[kept:])))


class PRope(Rope):
    """RoPE on the share `p` of pairs with the highest frequencies; the other pairs carry content alone.

    Frequencies are those of the full RoPE, whereas `fraction` of Rope spaces them over the rotated channels alone.
    """

    def __init__(self, dims: Dims, base: float, p: float, layout: Layout):
        super().__init__(dims, base, 1.0, layout)
        self.p = p
        self.kept = kept_pairs(p, self.rotary_dim // 2)

    def trained_frequencies(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        return highest_frequencies(super().trained_frequencies(device, dtype), self.p)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.kept} of {self.rotary_dim // 2} frequencies"
