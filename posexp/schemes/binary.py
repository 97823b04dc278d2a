"""The binary digits of the position, added to the channels. Neighbours such as 7 and 8 may differ in many digits.

Fleetwood 2024, huggingface.co/blog/designing-positional-encoding. A baseline.
Formula: x_p[c] + digit (c mod bits) of p in base 2, in every channel c; digit 0 is the lowest
Shape suffixes: B batch, T tokens, D width of the residual stream.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme

MAX_BITS = 62  # positions are int64, and the number of positions is one more than the largest


class Binary(Scheme):
    """A scheme that adds bit (c mod `bits`) of the position, lowest first, to channel c. Positions end at 2^bits.

    A fractional position is rounded down. Raises Misuse unless `bits` is from 1 to the number of channels, at most 62.
    """

    def __init__(self, dims: Dims, bits: int):
        super().__init__(dims)
        if not 1 <= bits <= min(dims.d_model, MAX_BITS):
            raise Misuse(f"scheme.bits={bits} must be from 1 to {min(dims.d_model, MAX_BITS)}, one channel per bit")
        self.bits = bits
        self.max_length = 2**bits

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        bit_D = torch.arange(self.dims.d_model, device=pos_BT.device) % self.bits
        return x_BTD + ((pos_BT.long()[..., None] >> bit_D) & 1).type_as(x_BTD)
