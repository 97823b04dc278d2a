"""A trained table stretched over longer inputs, as vision transformers do. Dosovitskiy et al. 2020, arXiv 2010.11929.

Shape suffixes: B batch, T tokens, D width of the residual stream, P entries of the table.
"""

from torch import Tensor

from posexp.dims import Dims
from posexp.schemes import Scheme
from posexp.schemes.learned import Learned
from posexp.schemes.wrapper import Wrapper
from posexp.transforms import Transform, check_counted, parts_in_use
from posexp.windows import Window


def stretched_positions(pos_BT: Tensor, entries: int, length: int) -> Tensor:
    """Return [B, T] float32, with positions 0 to `length` - 1 mapped to 0 to `entries` - 1."""
    return (pos_BT.float() * ((entries - 1) / (length - 1))).clamp(max=entries - 1)


class StretchedTable(Wrapper):
    """A learned table stretched to `length` positions by linear interpolation, undefined beyond."""

    def __init__(self, dims: Dims, inner: Scheme, entries: int, length: int):
        super().__init__(dims, inner)
        self.entries = entries
        self.max_length = length

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return self.inner.embed(x_BTD, stretched_positions(pos_BT, self.entries, self.max_length or 1))

    def extra_repr(self) -> str:
        return f"to {self.max_length}"


class TableInterpolation(Transform):
    """A learned table stretched to the evaluated length, and unchanged up to the length of the table.

    In contrast, `past_end=interpolate` of the scheme squeezes each input by its own length.
    """

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        twin, tables = parts_in_use(scheme, Learned, "learned table")
        check_counted(scheme)
        entries = len(tables[0].table_PD)
        return (twin if length <= entries else StretchedTable(self.dims, twin, entries, length)), window

    def describe(self, length: int) -> str:
        return f"table_interpolation(to={max(length, self.dims.train_length)})"
