"""A trained RoPE without its lowest frequencies. Barbero et al. 2024 (p-RoPE), arXiv 2410.06205, section 6.1."""

from typing import Any

from posexp.dims import Dims
from posexp.schemes.p_rope import highest_frequencies, kept_pairs
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable
from posexp.transforms.frequencies import Frequencies, Rescale


class TruncatedRope(Frequencies):
    """Keeps the share `p` of highest frequencies and sets the others to zero: they no longer tell positions."""

    def __init__(self, dims: Dims, p: float):
        super().__init__(dims)
        self.p = p

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        kept_pairs(self.p, rope.rotary_dim // 2)  # refuses a wrong p now
        return lambda theta_I, tokens: highest_frequencies(theta_I, self.p)

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        kept_pairs(self.p, rotary_dim // 2)
        if given.get("partial_rotary_factor") not in (None, 1):
            raise NotApplicable(
                "transformers keeps a share of a whole head's frequencies, and part of a head turns here"
            )
        return self.rescaled(given, rope_type="proportional") | {"partial_rotary_factor": self.p}

    def describe(self, length: int) -> str:
        return f"p_rope(p={self.p:g})"
