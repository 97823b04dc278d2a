"""The base class of windows, attention masks that can be combined with any scheme.

Windows count tokens of the input, whatever their positions in the scheme.
Shape suffixes: Q query tokens, K key tokens, H heads, N distances.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from posexp.config.components import from_node, options_of
from posexp.errors import Misuse

if TYPE_CHECKING:
    from posexp.dims import Dims

Number = TypeVar("Number", bound=float | None)
QUERY_BLOCK = 256  # queries of a block; schemes that read content take fewer on a CPU (schemes/per_layer.py)


@dataclass(frozen=True)
class Far:
    """The positions that replace those of queries and keys more than `reach` tokens apart.

    `query` and `key` return positions (int64 or float32) for the indices of tokens (int64).
    """

    reach: int
    query: Callable[[Tensor], Tensor]
    key: Callable[[Tensor], Tensor]


class Window:
    """A full causal mask: every token sees itself and all earlier tokens. A subclass hides some tokens.

    A subclass takes `dims` first and then its sizes in tokens, typed and without defaults. The defaults are in
    configs/window/<name>.yaml, where null means the share of the training length that the method's paper uses.
    """

    sinks = 0  # first tokens of the input that every token sees
    # Visible tokens, the token itself included, if the mask is a function of distance alone: in all heads, or in each.
    size: int | None = None
    head_sizes: tuple[int, ...] | None = None
    far: Far | None = None

    def __init__(self, dims: "Dims"):
        self.dims = dims

    @property
    def full(self) -> bool:
        return type(self) is Window

    def layer(self, index: int) -> "Window":
        """Return the window of block `index`."""
        return self

    def earliest(self, query_Q: Tensor) -> Tensor:
        """Return the index of the first key that each query sees, apart from sinks. Indices never decrease."""
        if self.size is not None:
            return (query_Q - self.size + 1).clamp(min=0)
        return torch.zeros_like(query_Q)

    def begin(self, query: int) -> int:
        """Return the index of the first key that any query from `query` on sees."""
        if self.sinks or self.full:
            return 0
        if self.size is not None:  # no tensor, since a compiled model would wait for its value
            return max(0, query - self.size + 1)
        return int(self.earliest(torch.tensor([query])))

    def visible(self, query_Q: Tensor, key_K: Tensor) -> Tensor:
        """Return [Q, K] bool: the query sees the key, both by index. [H, Q, K] with `head_sizes`."""
        inside_QK = key_K >= self.earliest(query_Q)[:, None]
        if self.sinks:
            inside_QK = inside_QK | (key_K < self.sinks)
        if self.head_sizes is not None:
            sizes_H = torch.tensor(self.head_sizes, device=key_K.device)
            inside_QK = inside_QK & (query_Q[:, None] - key_K < sizes_H[:, None, None])
        return inside_QK & (key_K <= query_Q[:, None])

    @property
    def by_distance(self) -> bool:
        """Whether the mask is a function of distance alone."""
        return self.full or self.size is not None or self.head_sizes is not None

    def hide(self, bias_HN: Tensor) -> Tensor:
        """Return the biases of distances 0, 1, 2, … with -inf where a mask by distance hides the key, [1 or H, N]."""
        if self.full or not self.by_distance:
            return bias_HN
        sizes_H = torch.tensor(self.head_sizes or (self.size,), device=bias_HN.device)
        gap_N = torch.arange(bias_HN.shape[1], device=bias_HN.device)
        return bias_HN.masked_fill(gap_N >= sizes_H[:, None], -torch.inf)

    def spans(self, T: int, size: int | None = None) -> Iterator[tuple[slice, slice]]:
        """Yield (queries, keys) of every block of queries, without the keys before the first visible one."""
        size = size or QUERY_BLOCK
        for first in range(0, T, size):
            last = min(first + size, T)
            yield slice(first, last), slice(self.begin(first), last)

    def blocks(self, T: int, device: torch.device, size: int | None = None) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield (queries, keys, the result of `visible`) of every block of `size` queries."""
        index_T = torch.arange(T, device=device)
        for rows, keys in self.spans(T, size):
            yield rows, keys, self.visible(index_T[rows], index_T[keys])

    def fingerprint(self) -> str:
        """Return a short description of what was built, the name of the window in rows and curves."""
        return "full"


def build_window(name: str, dims: "Dims", **sizes: Any) -> Window:
    """Return the window of configs/window/`name`.yaml with `sizes` in place of its defaults. Raises as schemes do."""
    return from_config(options_of("window", name, sizes), dims)


def from_config(node: dict[str, Any] | None, dims: "Dims") -> Window:
    """Return the window that a config section describes, and a full one for None."""
    return Window(dims) if node is None else from_node("window", Window, node, dims)


def at_least(name: str, value: Number, least: float) -> Number:
    """Return `value`, which may be None. Raises Misuse if it is below `least`."""
    if value is not None and not value >= least:
        shown = f"{value:g}" if isinstance(value, float) else value
        raise Misuse(f"{name}={shown} must be at least {least:g}")
    return value


def share_of(dims: "Dims", size: int | None, share: float) -> int:
    """Return `size`, or for None that `share` of the training length, in tokens. Raises Misuse unless above 0."""
    if not share > 0:
        raise Misuse(f"window.share={share:g} must be above 0, a share of train.length")
    return at_least("window.size", max(1, round(dims.train_length * share)) if size is None else size, 1)
