"""What a window is: which earlier tokens each token sees. An axis of its own, combined with any scheme.

Windows count tokens of the input, whatever positions a scheme gives them.
Shape suffixes: Q query tokens, K key tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posexp.config.components import from_node, options_of
from posexp.errors import Misuse

if TYPE_CHECKING:
    from posexp.dims import Dims

QUERY_BLOCK = 256  # queries that see a bias at a time: from 64 to 512 the speed is the same, the memory is not


@dataclass(frozen=True)
class Far:
    """Where queries and keys more than `reach` tokens apart are taken to stand, instead of where they are.

    `query` and `key` give positions (int64 or float32) from the tokens' indices (int64).
    """

    reach: int
    query: Callable[[Tensor], Tensor]
    key: Callable[[Tensor], Tensor]


class Window:
    """Every token sees all before it and itself. A subclass lets it see fewer.

    It takes `dims` first and then its sizes in tokens, typed and without defaults: those live in
    configs/window/<name>.yaml, where null means the training length's share that the method's paper uses.
    """

    sinks = 0  # first tokens of the input that every token sees
    size: int | None = None  # where the window is a function of distance alone: tokens seen, itself included
    far: Far | None = None

    def __init__(self, dims: "Dims"):
        self.dims = dims

    @property
    def full(self) -> bool:
        return type(self) is Window

    def layer(self, index: int) -> "Window":
        """The window of block `index`."""
        return self

    def earliest(self, query_Q: Tensor) -> Tensor:
        """Index of the first key that each query sees, sinks aside; never falls from one query to the next."""
        if self.size is not None:
            return (query_Q - self.size + 1).clamp(min=0)
        return torch.zeros_like(query_Q)

    def begin(self, query: int) -> int:
        """Index of the first key that any query from `query` on sees."""
        if self.sinks or self.full:
            return 0
        if self.size is not None:  # without a tensor, which a compiled model would have to wait for
            return max(0, query - self.size + 1)
        return int(self.earliest(torch.tensor([query])))

    def visible(self, query_Q: Tensor, key_K: Tensor) -> Tensor:
        """[Q, K] bool: the queries (by index) see the keys."""
        inside_QK = key_K >= self.earliest(query_Q)[:, None]
        if self.sinks:
            inside_QK = inside_QK | (key_K < self.sinks)
        return inside_QK & (key_K <= query_Q[:, None])

    def spans(self, T: int) -> Iterator[tuple[slice, slice]]:
        """(queries, keys), some queries at a time; keys that none of them sees are left out if they come first."""
        for first in range(0, T, QUERY_BLOCK):
            last = min(first + QUERY_BLOCK, T)
            yield slice(first, last), slice(self.begin(first), last)

    def blocks(self, T: int, device: torch.device) -> Iterator[tuple[slice, slice, Tensor]]:
        """(queries, keys, [Q, K] bool: who sees whom) of all spans."""
        index_T = torch.arange(T, device=device)
        for rows, keys in self.spans(T):
            yield rows, keys, self.visible(index_T[rows], index_T[keys])

    def fingerprint(self) -> str:
        """What was really built, in a few characters, as rows and curves name it."""
        return "full"


def build_window(name: str, dims: "Dims", **sizes: Any) -> Window:
    """The window of configs/window/`name`.yaml with `sizes` in place of its defaults. Raises Misuse as schemes do."""
    return from_config(options_of("window", name, sizes), dims)


def from_config(node: dict[str, Any] | None, dims: "Dims") -> Window:
    """The window that a config section describes; a full one for None."""
    return Window(dims) if node is None else from_node("window", Window, node, dims)


def at_least(name: str, value: int, least: int) -> int:
    """`value`. Raises Misuse if it is below `least`."""
    if value < least:
        raise Misuse(f"{name}={value} must be at least {least}")
    return value
