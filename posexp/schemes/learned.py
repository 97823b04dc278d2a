"""A learned table of absolute positions, added to the embeddings, as in GPT-2 (Radford et al. 2019).

Formula: x_p + e_p, with a trained vector e_p for every position p below the training length
Shape suffixes: B batch, T tokens, D width of the residual stream, P entries of the table.
"""

from enum import Enum

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import EMBEDDING_STD, Scheme


class PastEnd(Enum):
    """The treatment of positions past the end of the table."""

    error = "error"
    clamp = "clamp"
    interpolate = "interpolate"


class Learned(Scheme):
    """A trained vector for each of the first `train_length` positions.

    With `past_end=error` longer inputs are undefined. `clamp` repeats the last vector. `interpolate` squeezes all
    positions of a longer input into the table, so that the output at a position depends on the input's length.
    """

    def __init__(self, dims: Dims, past_end: PastEnd):
        super().__init__(dims)
        self.past_end = past_end
        self.max_length = dims.train_length if past_end is PastEnd.error else None
        self.prefix_stable = past_end is not PastEnd.interpolate
        # The initial scale and the multiplier are those of the token embeddings, so that neither drowns the other and
        # AdamW moves both at the same rate.
        self.table_PD = nn.Parameter(torch.randn(dims.train_length, dims.d_model) * EMBEDDING_STD)

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        last = self.table_PD.shape[0] - 1
        if self.past_end is PastEnd.clamp:
            pos_BT = pos_BT.clamp(max=last)
        elif self.past_end is PastEnd.interpolate:
            pos_BT = pos_BT.float() * (last / pos_BT.amax(-1, keepdim=True).clamp(min=last))
        elif not torch.compiler.is_compiling() and int(pos_BT.max()) > last:  # the decoder checks lengths too
            raise Misuse(f"the learned table ends at position {last}, got an input of length {int(pos_BT.max()) + 1}")
        return x_BTD + self.lookup(pos_BT).type_as(x_BTD) / EMBEDDING_STD

    def lookup(self, pos_BT: Tensor) -> Tensor:
        """Return the vectors at the positions, [B, T, D], interpolated linearly between whole positions."""
        if not pos_BT.is_floating_point():
            return self.table_PD[pos_BT]
        low_BT = pos_BT.floor().long()
        high_BT = (low_BT + 1).clamp(max=self.table_PD.shape[0] - 1)
        part_BT1 = (pos_BT - low_BT)[..., None].to(self.table_PD.dtype)
        return torch.lerp(self.table_PD[low_BT], self.table_PD[high_BT], part_BT1)

    def extra_repr(self) -> str:
        return f"entries={self.table_PD.shape[0]}, past_end={self.past_end.value}"
