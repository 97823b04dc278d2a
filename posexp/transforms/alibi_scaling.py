"""ALiBi with flatter slopes. Al-Khateeb et al. 2023, arXiv 2310.13017, section 2.

Shape suffix: N distances.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.schemes import Scheme
from posexp.schemes.alibi import Alibi
from posexp.schemes.wrapper import Wrapper
from posexp.transforms import Transform, parts_in_use
from posexp.windows import Window, at_least


class FlatterSlopes(Wrapper):
    """A wrapper that divides the bias by `factor`."""

    def __init__(self, dims: Dims, inner: Scheme, factor: float):
        super().__init__(dims, inner)
        self.factor = factor

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        bias_HN = self.inner.distance_bias(gap_N)
        assert bias_HN is not None  # ALiBi always has one
        return bias_HN / self.factor

    def extra_repr(self) -> str:
        return f"1/{self.factor:g}"


class AlibiScaling(Transform):
    """A division of ALiBi's slopes by `factor`.

    `factor` null is length / training length for each evaluated length, so that the penalty of the longest distance is
    that of the training length.
    """

    def __init__(self, dims: Dims, factor: float | None):
        super().__init__(dims)
        self.factor = at_least("transform.factor", factor, 1)

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        twin, slopes = parts_in_use(scheme, Alibi, "ALiBi slopes")
        factor = self.stretch(length, self.factor)
        if twin in slopes:
            return FlatterSlopes(self.dims, twin, factor), window
        for part in list(twin.modules()):
            for name, inner in part.named_children():
                if isinstance(inner, Alibi):
                    part.add_module(name, FlatterSlopes(self.dims, inner, factor))
        return twin, window

    def describe(self, length: int) -> str:
        return f"alibi_scaling(factor={self.stretch(length, self.factor):g})"
