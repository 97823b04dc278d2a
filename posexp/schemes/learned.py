"""A learned table of absolute positions, added to the embeddings, as in GPT-2 (Radford et al. 2019).

Shape suffixes: B batch, T tokens, D width of the residual stream, P entries of the table.
"""

from enum import Enum

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import EMBEDDING_STD, Scheme


class PastEnd(Enum):
    """What happens to positions past the table's end."""

    error = "error"
    clamp = "clamp"
    interpolate = "interpolate"


class Learned(Scheme):
    """One trained vector for each of the first `train_length` positions.

    `past_end`: `error` leaves longer inputs undefined; `clamp` repeats the last vector;
    `interpolate` squeezes all positions of a longer input into the table's range, which makes
    the output at a position depend on the input's length.
    """

    def __init__(self, dims: Dims, past_end: PastEnd):
        super().__init__(dims)
        self.past_end = past_end
        self.max_length = dims.train_length if past_end is PastEnd.error else None
        self.prefix_stable = past_end is not PastEnd.interpolate
        # Same initial scale and same multiplier as the token embeddings, so that neither drowns the other
        # and AdamW moves both at one pace.
        self.table_PD = nn.Parameter(torch.randn(dims.train_length, dims.d_model) * EMBEDDING_STD)

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        last = self.table_PD.shape[0] - 1
        if self.past_end is PastEnd.clamp:
            pos_BT = pos_BT.clamp(max=last)
        elif self.past_end is PastEnd.interpolate:
            pos_BT = pos_BT.float() * (last / pos_BT.amax(-1, keepdim=True).clamp(min=last))
        elif not torch.compiler.is_compiling() and int(pos_BT.max()) > last:  # the decoder checks lengths anyway
            raise Misuse(f"the learned table ends at position {last}: input of length {int(pos_BT.max()) + 1}")
        return x_BTD + self.lookup(pos_BT).type_as(x_BTD) / EMBEDDING_STD

    def lookup(self, pos_BT: Tensor) -> Tensor:
        """[B, T, D]; between whole positions, the straight line between their vectors."""
        if not pos_BT.is_floating_point():
            return self.table_PD[pos_BT]
        low_BT = pos_BT.floor().long()
        high_BT = (low_BT + 1).clamp(max=self.table_PD.shape[0] - 1)
        part_BT1 = (pos_BT - low_BT)[..., None].to(self.table_PD.dtype)
        return torch.lerp(self.table_PD[low_BT], self.table_PD[high_BT], part_BT1)

    def extra_repr(self) -> str:
        return f"entries={self.table_PD.shape[0]}, past_end={self.past_end.value}"
