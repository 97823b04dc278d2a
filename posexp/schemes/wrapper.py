"""Schemes made of other schemes: their joint promises, and a wrapper that forwards every hook, layer by layer.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, C channels of a head, D width of the
residual stream, N distances.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes import Scheme, bias_between, overrides, slopes_of
from posexp.windows import Window


class promise:  # noqa: N801, used as `property` is
    """A property that an attribute of the instance overrides, since a user's wrapper may set such an attribute."""

    def __init__(self, read: Callable[[Any], Any]):
        self.read = read

    def __get__(self, scheme: Scheme | None, owner: type) -> Any:
        return self if scheme is None else self.read(scheme)


class Composite(Scheme):
    """A scheme made of other schemes, with promises computed from their promises at every access."""

    def parts(self) -> Sequence[Scheme]:
        """Return the schemes that act."""
        raise NotImplementedError

    @promise
    def max_length(self) -> int | None:
        limits = [part.max_length for part in self.parts() if part.max_length is not None]
        return min(limits) if limits else None  # torch.compile does not support `default`

    @promise
    def relative(self) -> bool:
        return all(part.relative for part in self.parts())

    @promise
    def reads_positions(self) -> bool:
        return any(part.reads_positions for part in self.parts())

    @promise
    def prefix_stable(self) -> bool:
        return all(part.prefix_stable for part in self.parts())

    @promise
    def linear_bias(self) -> bool:
        return all(part.linear_bias for part in self.parts())

    @promise
    def reads_text(self) -> bool:
        return any(part.reads_text for part in self.parts())

    def progress(self, share: float) -> None:
        for part in self.parts():
            part.progress(share)

    def notes(self) -> list[str]:
        return list(dict.fromkeys(note for part in self.parts() for note in part.notes()))


class Wrapper(Composite):
    """A scheme with the hooks and promises of `inner`. A subclass overrides some hooks."""

    def __init__(self, dims: Dims, inner: Scheme):
        super().__init__(dims)
        self.inner = inner

    @property
    def acting(self) -> Scheme:
        """The scheme to which every hook is forwarded."""
        return self.inner

    def parts(self) -> Sequence[Scheme]:
        return [self.acting]

    def acts(self, hook: str) -> bool:
        return overrides(self, hook, Wrapper) or self.acting.acts(hook)

    def layer(self, index: int) -> Scheme:
        part = self.inner.layer(index)
        return self if part is self.inner else self.around(part)

    def around(self, inner: Scheme) -> "Wrapper":
        """Return the same wrapper around another scheme."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "inner": inner}
        return twin

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        return self.acting.positions(B, T, device)

    def positions_of(self, tokens_BT: Tensor) -> Tensor:
        if overrides(self, "positions", Wrapper):
            return super().positions_of(tokens_BT)
        return self.acting.positions_of(tokens_BT)

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return self.acting.embed(x_BTD, pos_BT)

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        return self.acting.rotate(q_BHTC, k_BHTC, pos_BT)

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        return self.acting.distance_bias(gap_N)

    def distance_slopes(self, device: torch.device) -> Tensor | None:
        return slopes_of(self.acting, device)

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        return self.acting.bias(pos_BQ, pos_BK)

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor | None:
        return self.acting.attend(q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)

    def progress(self, share: float) -> None:
        self.inner.progress(share)

    def fingerprint(self) -> str:
        own = ", ".join(part for part in (self.extra_repr(), self.inner.fingerprint()) if part)
        return f"{type(self).__name__}({own})"


class Resampled(Wrapper):
    """A wrapper that samples positions. While sampling, distances are differences of positions, not of tokens."""

    def sampling(self) -> bool:
        return self.training

    def acts(self, hook: str) -> bool:
        if hook == "distance_bias":
            return not self.sampling() and self.inner.acts(hook)
        if hook == "bias":
            return self.inner.acts(hook) or (self.sampling() and self.inner.acts("distance_bias"))
        return super().acts(hook)

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        return None if self.sampling() else self.inner.distance_bias(gap_N)

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        return bias_between(self.inner, pos_BQ, pos_BK) if self.sampling() else self.inner.bias(pos_BQ, pos_BK)
