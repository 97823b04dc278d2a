"""NTK-aware interpolation that depends on the input's length. emozilla 2023; arXiv 2309.00071, section 3.3.

Shape suffix: I rotated pairs of channels.
"""

from typing import Any

from torch import Tensor

from posexp.dims import Dims
from posexp.schemes.rope import Rope
from posexp.transforms.frequencies import Frequencies, Rescale
from posexp.transforms.ntk import check_pairs, ntk_frequencies
from posexp.windows import at_least


def dynamic_ntk_factor(tokens: int, train_length: int, factor: float) -> float:
    """Return factor * tokens / train_length - (factor - 1), the NTK factor of an input, at least 1."""
    return factor * max(1.0, tokens / train_length) - (factor - 1)


def dynamic_ntk_frequencies(theta_I: Tensor, tokens: int, train_length: int, factor: float) -> Tensor:
    """Return the frequencies, [I], which are those of training up to `train_length` tokens."""
    return ntk_frequencies(theta_I, dynamic_ntk_factor(tokens, train_length, factor))


class DynamicNtk(Frequencies):
    """A base that depends on the input's length, and is that of training within the training length.

    The output at a position thus depends on the input's length. `factor` is that of the formula, not a stretch.
    """

    counts_tokens = True

    def __init__(self, dims: Dims, factor: float):
        super().__init__(dims)
        self.factor = at_least("transform.factor", factor, 1)

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        check_pairs(rope.rotary_dim)
        return lambda theta_I, tokens: dynamic_ntk_frequencies(theta_I, tokens, self.dims.train_length, self.factor)

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        check_pairs(rotary_dim)
        return self.rescaled(given, rope_type="dynamic", factor=self.factor)

    def describe(self, length: int) -> str:
        return f"dynamic_ntk(factor={self.factor:g})"
