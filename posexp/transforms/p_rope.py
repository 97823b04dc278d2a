"""A trained RoPE without its lowest frequencies. Barbero et al. 2024 (p-RoPE), arXiv 2410.06205, section 6.1."""

from typing import Any

from posexp.dims import Dims
from posexp.schemes.p_rope import highest_frequencies, kept_pairs
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable
from posexp.transforms.frequencies import Frequencies, Rescale


class TruncatedRope(Frequencies):
    """The share `p` of highest frequencies, with the other frequencies set to zero."""

    def __init__(self, dims: Dims, p: float):
        super().__init__(dims)
        self.p = p

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        kept_pairs(self.p, rope.rotary_dim // 2)  # raises for an invalid p before any rotation
        return lambda theta_I, tokens: highest_frequencies(theta_I, self.p)

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        kept_pairs(self.p, rotary_dim // 2)
        if given.get("partial_rotary_factor") not in (None, 1):
            raise NotApplicable(
                "transformers has p-RoPE for fully rotated heads only, but a part of each head is rotated here"
            )
        return self.rescaled(given, rope_type="proportional") | {"partial_rotary_factor": self.p}

    def describe(self, length: int) -> str:
        return f"p_rope(p={self.p:g})"
