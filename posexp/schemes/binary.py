"""The position's binary digits, added to the channels: neighbours such as 7 and 8 may differ in many of them.

Fleetwood 2024, huggingface.co/blog/designing-positional-encoding. Kept to compare.
Shape suffixes: B batch, T tokens, D width of the residual stream.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme

MOST = 62  # positions are int64, and their number is one more than the largest


class Binary(Scheme):
    """Adds bit (c mod `bits`) of the position, lowest first, to channel c; positions end at 2^bits.

    A position between whole ones has the bits of the one below. Raises Misuse for bits that are not between 1 and
    the number of channels (or 62).
    """

    def __init__(self, dims: Dims, bits: int):
        super().__init__(dims)
        if not 1 <= bits <= min(dims.d_model, MOST):
            raise Misuse(f"scheme.bits={bits} must be from 1 to {min(dims.d_model, MOST)}: each needs a channel")
        self.bits = bits
        self.max_length = 2**bits

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        bit_D = torch.arange(self.dims.d_model, device=pos_BT.device) % self.bits
        return x_BTD + ((pos_BT.long()[..., None] >> bit_D) & 1).type_as(x_BTD)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
