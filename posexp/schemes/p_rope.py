"""RoPE without its lowest frequencies (p-RoPE). Barbero et al. 2024, arXiv 2410.06205, section 6.1.

Shape suffix: I rotated pairs of channels.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes.rope import Layout, Rope


def kept_pairs(p: float, pairs: int) -> int:
    """The share `p` of `pairs`, rounded down. Raises Misuse for a share that keeps none, or is above 1."""
    kept = int(p * pairs)
    if not 0 < kept <= pairs:
        raise Misuse(f"p={p:g} keeps {kept} of {pairs} frequencies: it is a share of them, above 0 and up to 1")
    return kept


def highest_frequencies(theta_I: Tensor, p: float) -> Tensor:
    """[I]: the share `p` of highest frequencies as they are, then zeros. `theta_I` falls."""
    kept = kept_pairs(p, len(theta_I))
    return torch.cat((theta_I[:kept], torch.zeros_like(theta_I[kept:])))


class PRope(Rope):
    """Turns the share `p` of pairs with the highest frequencies, and leaves the others for content alone.

    Frequencies are those of the full RoPE; `fraction` of it would space them anew over the rotated channels.
    """

    def __init__(self, dims: Dims, base: float, p: float, layout: Layout):
        super().__init__(dims, base, 1.0, layout)
        self.p = p
        self.kept = kept_pairs(p, self.rotary_dim // 2)

    def trained_frequencies(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        return highest_frequencies(super().trained_frequencies(device, dtype), self.p)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.kept} of {self.rotary_dim // 2} frequencies"
