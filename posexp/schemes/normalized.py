"""The position as a share of the input, added to every channel: bounded, but the step depends on the input's length.

Kazemnejad 2019, kazemnejad.com/blog/transformer_architecture_positional_encoding. A baseline.
Formula: x_p[c] + p / (largest position of the input), in every channel c
Shape suffixes: B batch, T tokens, D width of the residual stream.
"""

from torch import Tensor

from posexp.schemes import Scheme, exact_type


class Normalized(Scheme):
    """A scheme that adds p / (largest position of the input) to every channel of the token at position p.

    The output at a position depends on the input's length, so a token's state depends on how many tokens follow.
    """

    prefix_stable = False

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        exact_BT = pos_BT.to(exact_type(x_BTD))
        share_BT = exact_BT / exact_BT.amax(-1, keepdim=True).clamp(min=1)
        return (x_BTD + share_BT[..., None]).type_as(x_BTD)
