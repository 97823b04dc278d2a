"""Other frequencies for every rotary scheme, whatever wraps it.

Shape suffix: I rotated pairs of channels.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable, Transform
from posexp.transforms.applicable import at_least, parts_in_use
from posexp.windows import Window

Rescale = Callable[[Tensor, int], Tensor]


class Frequencies(Transform):
    """Changes what `frequencies` says, on top of what an earlier transform changed.

    Of xPos, the rotation alone: its decay stays as trained.
    """

    counts_tokens = False  # frequencies depend on how long the input really is

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        """What makes frequencies ([I], radians per token) of those there were and the input's length in tokens."""
        raise NotImplementedError

    def rescaled(self, given: dict[str, Any], **values: Any) -> dict[str, Any]:
        """`values`, with what every kind of `rope_parameters` has. Raises NotApplicable where `given` rescale already:
        transformers takes one change."""
        kind = given.get("rope_type") or "default"
        if kind != "default":
            raise NotApplicable(f"its frequencies are rescaled already ({kind}), and transformers changes them once")
        kept = {key: given[key] for key in ("rope_theta", "partial_rotary_factor") if given.get(key) is not None}
        return {**kept, **values}

    def attention_factor(self, length: int) -> float:
        """What rotated queries and keys are both multiplied by."""
        return 1.0

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        """As for every transform. Raises Misuse for a window that moves far keys, if the input's length counts."""
        twin, ropes = parts_in_use(scheme, Rope, "rotary frequencies")
        if self.counts_tokens and any(window.layer(i).far for i in range(self.dims.n_layer)):
            raise Misuse(
                f"{self.describe(length)} goes by the input's length, and window {window.fingerprint()!r} caps "
                "distances: choose one of them"
            )
        for rope in ropes:
            rope.rescale = after(rope.rescale, self.frequencies(rope, length))
            rope.magnitude = rope.magnitude * self.attention_factor(length)
        twin.prefix_stable = twin.prefix_stable and not self.counts_tokens
        return twin, window


class Stretched(Frequencies):
    """A frequency transform that asks how many times longer than in training inputs are.

    `factor` null: each evaluated length gets its own, length / training length.
    """

    def __init__(self, dims: Dims, factor: float | None):
        super().__init__(dims)
        at_least("factor", factor, 1)
        self.factor = factor


def after(first: Rescale | None, second: Rescale) -> Rescale:
    if first is None:
        return second
    return lambda theta_I, tokens: second(first(theta_I, tokens), tokens)
