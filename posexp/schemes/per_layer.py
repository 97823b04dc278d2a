"""Base classes of schemes that read content: parameters per layer, and attention by blocks of queries.

Shape suffixes: B batch, T tokens, Q query tokens of a block, K keys that it sees, D width of the residual stream,
H heads, C channels of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from posexp import windows
from posexp.dims import Dims
from posexp.schemes import Scheme, exact_type
from posexp.schemes.wrapper import Composite
from posexp.windows import Window

CPU_QUERIES, CPU_LOGITS = 64, 2**18  # queries and logits of a block on a CPU, about
CPU_PAIRS = 2**13  # pairs whose hidden layer is computed at a time on a CPU


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
    visible: Tensor  # [Q, K] or [H, Q, K] bool: the query sees the key
    own: slice  # places among the keys of the tokens of the queries
    partial: slice  # places among the keys that some query does not see

    def nearest_first(self) -> "Block":
        """Return the block with keys in reverse order, so that a sum from the query backwards is a cumsum."""
        partial = self.partial if self.partial == slice(None) else slice(self.q.shape[2])
        k, v, visible = self.k.flip(2), self.v.flip(2), self.visible.flip(-1)
        return self._replace(k=k, v=v, visible=visible, own=slice(self.q.shape[2]), partial=partial)

    def hide(self, x_BHQK: Tensor, value: float = -torch.inf) -> Tensor:
        """Return `x_BHQK` with `value` written in place of what queries do not see."""
        x_BHQK[..., self.partial].masked_fill_(~self.visible[..., self.partial], value)
        return x_BHQK


class BlockwiseAttention(Scheme):
    """A scheme with its own attention in memory linear in T: `mixtures` gets blocks of queries, without autocast.

    On a CPU the blocks are small, so that their logits stay in its cache.
    """

    exact = True  # queries, keys and values come as float32 or wider; False: in their own dtype

    def mixture(self, block: Block) -> Tensor:
        """Return [B, H, Q, C] of one block, for schemes that need no more than it."""
        raise NotImplementedError

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        """Yield [B, H, Q, C] of every block, in order. `x_BTD` is that of `attend`."""
        for block in blocks:
            yield self.mixture(block)

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor:
        B, H, T, _ = q_BHTC.shape
        small = q_BHTC.device.type == "cpu"
        queries = min(windows.QUERY_BLOCK, CPU_QUERIES if small else windows.QUERY_BLOCK)
        count = max(1, CPU_LOGITS // (H * T * queries)) if small else B
        mixed = []
        with torch.autocast(q_BHTC.device.type, enabled=False):
            for some in (slice(first, first + count) for first in range(0, B, count)):
                blocks = self.blocks(q_BHTC[some], k_BHTC[some], v_BHTC[some], window, queries)
                pos_bT = pos_BT if len(pos_BT) == 1 else pos_BT[some]
                mixed.append(torch.cat(list(self.mixtures(blocks, pos_bT, x_BTD[some])), dim=2))
            return torch.cat(mixed).type_as(q_BHTC)

    def blocks(self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, window: Window, queries: int) -> Iterator[Block]:
        kind = exact_type(q_BHTC) if self.exact else q_BHTC.dtype
        q_BHTC, k_BHTC, v_BHTC = (part.to(kind) for part in (q_BHTC, k_BHTC, v_BHTC))
        for rows, keys, visible_QK in window.blocks(q_BHTC.shape[2], q_BHTC.device, queries):
            q, k, v = q_BHTC[:, :, rows], k_BHTC[:, :, keys], v_BHTC[:, :, keys]
            own = slice(rows.start - keys.start, None)
            yield Block(rows, keys, q, k, v, visible_QK, own, own if window.full else slice(None))


def pieces(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Split pairs of a query and a key, so that the hidden layer of a piece stays in the cache of a CPU."""
    return x.split(CPU_PAIRS if x.device.type == "cpu" else x.shape[dim], dim)


def recomputed(function: Callable[..., Any], *args: Any) -> Any:
    """Return function(*args), whose activations are computed again for the gradient instead of stored."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a compiler chooses what to store
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
    return function(*args)
