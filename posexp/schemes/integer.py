"""The position itself, added to every channel.

Fleetwood 2024, huggingface.co/blog/designing-positional-encoding. A baseline.
Formula: x_p[c] + p, in every channel c
Shape suffixes: B batch, T tokens, D width of the residual stream.
"""

from torch import Tensor

from posexp.schemes import Scheme, exact_type


class Integer(Scheme):
    """A scheme that adds p to every channel of the token at position p, which soon drowns embeddings of unit scale."""

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return (x_BTD + pos_BT.to(exact_type(x_BTD))[..., None]).type_as(x_BTD)
