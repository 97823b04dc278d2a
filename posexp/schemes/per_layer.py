"""Base classes of schemes that read content: parameters per layer, and attention by blocks of queries.

Shape suffixes: B batch, T tokens, Q query tokens of a block, K keys that it sees, D width of the residual stream,
H heads, C channels of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import Scheme, exact_type
from posexp.schemes.wrapper import Composite
from posexp.windows import Window


class PerLayer(Composite):
    """A scheme with parameters of its own in every layer of the decoder: `make` is called for each layer."""

    def __init__(self, dims: Dims, make: Callable[[], Scheme]):
        super().__init__(dims)
        self.layers = nn.ModuleList(make() for _ in range(dims.n_layer))

    def layer(self, index: int) -> Scheme:
        return self.layers[index]  # type: ignore[return-value]

    def parts(self) -> Sequence[Scheme]:
        return [self.layer(index) for index in range(self.dims.n_layer)]


class Block(NamedTuple):
    """Some queries of an input, and the keys that any of the queries sees."""

    rows: slice  # places of the queries in the input
    keys: slice  # places of the keys
    q: Tensor  # [B, H, Q, C]
    k: Tensor  # [B, H, K, C], and v
    v: Tensor
    own_k: Tensor  # [B, H, Q, C], and own_v: of the tokens of the queries
    own_v: Tensor
    visible: Tensor  # [Q, K] bool: the query sees the key

    def nearest_first(self) -> "Block":
        """Return the block with keys in reverse order, so that a sum from the query backwards is a cumsum."""
        return self._replace(k=self.k.flip(2), v=self.v.flip(2), visible=self.visible.flip(1))


class BlockwiseAttention(Scheme):
    """A scheme with its own attention in memory linear in T: `mixtures` gets blocks of queries, without autocast."""

    exact = True  # queries, keys and values come as float32 or wider; False: in their own dtype

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        """Yield [B, H, Q, C] of every block, in order. `x_BTD` is that of `attend`."""
        raise NotImplementedError

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor:
        with torch.autocast(q_BHTC.device.type, enabled=False):
            blocks = self.blocks(q_BHTC, k_BHTC, v_BHTC, window)
            return torch.cat(list(self.mixtures(blocks, pos_BT, x_BTD)), dim=2).type_as(q_BHTC)

    def blocks(self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, window: Window) -> Iterator[Block]:
        kind = exact_type(q_BHTC) if self.exact else q_BHTC.dtype
        for rows, keys, visible_QK in window.blocks(q_BHTC.shape[2], q_BHTC.device):
            k, v = (x_BHTC[:, :, keys].to(kind) for x_BHTC in (k_BHTC, v_BHTC))
            q, own_k, own_v = (x_BHTC[:, :, rows].to(kind) for x_BHTC in (q_BHTC, k_BHTC, v_BHTC))
            yield Block(rows, keys, q, k, v, own_k, own_v, visible_QK)
