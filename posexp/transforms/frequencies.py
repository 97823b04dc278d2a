"""The base classes of transforms that change frequencies of a rotary scheme, wrapped or not.

Shape suffix: I rotated pairs of channels.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable, Transform, parts_in_use
from posexp.windows import Window, at_least

Rescale = Callable[[Tensor, int], Tensor]


class Frequencies(Transform):
    """A change of frequencies by `frequencies`, after the changes of earlier transforms.

    The decay of xPos does not change.
    """

    counts_tokens = False  # True: frequencies depend on the length of each input

    def frequencies(self, rope: Rope, length: int) -> Rescale:
        """Return the function from frequencies ([I], radians per token) and tokens of the input to new ones."""
        raise NotImplementedError

    def rescaled(self, given: dict[str, Any], **values: Any) -> dict[str, Any]:
        """Return `values` with the keys of any `rope_parameters`. Raises NotApplicable if `given` rescale too."""
        kind = given.get("rope_type") or "default"
        if kind != "default":
            raise NotApplicable(f"the frequencies are rescaled already ({kind}), and transformers rescales only once")
        kept = {key: given[key] for key in ("rope_theta", "partial_rotary_factor") if given.get(key) is not None}
        return {**kept, **values}

    def attention_factor(self, length: int) -> float:
        """Return the factor of rotated queries, and of rotated keys."""
        return 1.0

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        """Return the changed scheme and the window. Raises Misuse if `counts_tokens` and the window sets `far`."""
        twin, ropes = parts_in_use(scheme, Rope, "rotary frequencies")
        if self.counts_tokens and any(window.layer(i).far for i in range(self.dims.n_layer)):
            raise Misuse(
                f"{self.describe(length)} depends on the input's length, and window {window.fingerprint()!r} caps "
                "distances: choose one of them"
            )
        for rope in ropes:
            rope.rescale = after(rope.rescale, self.frequencies(rope, length))
            rope.magnitude = rope.magnitude * self.attention_factor(length)
        twin.prefix_stable = twin.prefix_stable and not self.counts_tokens
        return twin, window


class Stretched(Frequencies):
    """A frequency transform with a stretch, the ratio of the input's length to the training length.

    `factor` null is length / training length for each evaluated length.
    """

    def __init__(self, dims: Dims, factor: float | None):
        super().__init__(dims)
        self.factor = at_least("transform.factor", factor, 1)

    def unchanged(self, length: int) -> bool:
        return self.stretch(length, self.factor) == 1


def after(first: Rescale | None, second: Rescale) -> Rescale:
    if first is None:
        return second
    return lambda theta_I, tokens: second(first(theta_I, tokens), tokens)
