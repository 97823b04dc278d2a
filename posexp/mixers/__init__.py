"""The base class of mixers, recurrent and linear layers in the place of attention.

A mixer has no positional scheme: order comes from its state, whose size does not grow with the text.
Shape suffixes: B batch, T tokens, D width of the residual stream, X channels, W taps.
"""

from typing import Any

import torch
from torch import Tensor, nn

from posexp.config.components import from_node
from posexp.dims import INIT_STD, Dims
from posexp.errors import Misuse
from posexp.ops.layers import StackedLinear
from posexp.ops.short_conv import ShortConv

SEGMENT = 1024  # tokens that are computed at a time without gradients, so that memory does not grow with the input
State = tuple[Tensor, ...]


class Mixer(nn.Module):
    """A causal layer from [B, T, D] to [B, T, D].

    A subclass takes `dims` and `attention_every` first and then its sizes, typed and without defaults. The defaults are
    in configs/mixer/<name>.yaml. With `attention_every` k, every k-th block has attention instead, which scheme and
    window serve; 0 means that no block has. States are float32 whatever autocast does, and float64 where activations
    are.
    """

    path = ""  # how the layer is computed, as recorded in rows

    def __init__(self, dims: Dims, attention_every: int):
        super().__init__()
        self.dims, self.attention_every = dims, attention_every

    def mix(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the output, [B, T, D], and the state behind the last token, for the state before the first (None)."""
        raise NotImplementedError

    def forward(self, x_BTD: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.mix(x_BTD, None)[0]
        out_BTD, state = torch.empty_like(x_BTD), None
        for first in range(0, x_BTD.shape[1], SEGMENT):
            piece = slice(first, first + SEGMENT)
            out_BTD[:, piece], state = self.mix(x_BTD[:, piece], state)
        return out_BTD

    def fingerprint(self) -> str:
        """Return one line that describes what was built."""
        every = f", attention in every {self.attention_every}th block" if self.attention_every else ""
        return f"{type(self).__name__}({self.extra_repr()}){every}"


def from_config(node: dict[str, Any], dims: Dims) -> Mixer:
    """Return the mixer of one block from a config section. Raises Misuse as schemes do."""
    return from_node("mixer", Mixer, node, dims)


def attention_blocks(node: dict[str, Any] | None, n_layer: int) -> list[int]:
    """Return the indices of the blocks with attention: all without a mixer, every `attention_every`-th with one."""
    every = 1 if node is None else node.get("attention_every", 0)
    if not isinstance(every, int) or every < 0:
        raise Misuse(f"mixer.attention_every={every} must be at least 0, for no attention")
    return [index for index in range(n_layer) if every and (index + 1) % every == 0]


def drawn_linear(inputs: int, *rows: int, branches: int = 1) -> StackedLinear:
    """Return linear layers drawn as those of attention are; `branches` of the residual stream end in such layers."""
    layer = StackedLinear(inputs, *rows)
    nn.init.normal_(layer.weight, std=INIT_STD * branches**-0.5)
    return layer


def drawn_conv(channels: int, taps: int = 4) -> ShortConv:
    """Return a convolution drawn as PyTorch's are, as in the published layers."""
    conv = ShortConv(channels, taps)
    nn.init.uniform_(conv.weight, -(taps**-0.5), taps**-0.5)
    return conv


def convolved(conv: ShortConv, x_BTX: Tensor, before_BWX: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the convolution of `x_BTX` behind the tokens `before_BWX`, and the tokens that the next piece needs."""
    seen_BTX = x_BTX if before_BWX is None else torch.cat((before_BWX, x_BTX), dim=1)
    return conv(seen_BTX)[:, -x_BTX.shape[1] :], seen_BTX[:, 1 - conv.weight.shape[1] :]


def heads_of(heads: int | None, dims: Dims, multiple: int) -> int:
    """Return the number of heads, null for model.n_head. Raises Misuse unless `multiple` times it divides d_model."""
    heads = dims.n_head if heads is None else heads
    if heads < 1 or dims.d_model % (multiple * heads):
        raise Misuse(f"mixer.heads={heads}: model.d_model={dims.d_model} must be divisible by {multiple} times it")
    return heads
