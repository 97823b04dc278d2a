"""What a transform is: a change to a trained model made at evaluation only, without training again."""

import copy
from typing import Any

from posexp.config.components import from_node, options_of
from posexp.dims import Dims
from posexp.errors import Inapplicable
from posexp.schemes import Scheme
from posexp.windows import Window


class NotApplicable(Inapplicable):
    """The transform has nothing to change in this scheme."""


class Transform:
    """Makes another scheme, and another window if need be, from those of a trained run.

    A subclass takes `dims` first and then its options, typed and without defaults: those live in
    configs/transform/<name>.yaml.
    """

    def __init__(self, dims: Dims):
        self.dims = dims

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        """The changed scheme and window for inputs of at most `length` tokens; those given are left as they are.

        Raises NotApplicable if the scheme has nothing that this transform changes.
        """
        raise NotImplementedError

    def describe(self, length: int) -> str:
        """What is really done to inputs of at most `length` tokens, in a few characters, as rows name it."""
        return type(self).__name__

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        """The same change as the `rope_parameters` of a config of transformers, for inputs of at most `length` tokens.

        `given` are those of the model as trained, `rotary_dim` channels of a head are rotated. Raises NotApplicable
        if there is no such change.
        """
        raise NotApplicable(f"{self.describe(length)} has no equivalent in transformers")

    def stretch(self, length: int, factor: float | None) -> float:
        """`factor`, or if it is None how many times longer than the training length `length` is, at least 1."""
        return max(1.0, length / self.dims.train_length) if factor is None else factor


def changed(scheme: Scheme, kind: type, what: str) -> tuple[Scheme, list[Any]]:
    """A copy of `scheme`, and the parts of it (the scheme itself, or what it wraps) that are of `kind`.

    Raises NotApplicable, saying that the scheme has no `what`, if there are none.
    """
    twin = copy.deepcopy(scheme)
    parts = [part for part in twin.modules() if isinstance(part, kind)]
    if not parts:
        raise NotApplicable(f"{scheme.fingerprint()} has no {what}")
    return twin, parts


def build_transform(name: str, dims: Dims, **options: Any) -> Transform:
    """The transform of configs/transform/`name`.yaml with `options` in place of its defaults."""
    return from_config(options_of("transform", name, options), dims)


def from_config(node: dict[str, Any], dims: Dims) -> Transform:
    """The transform that a config section describes. Raises Misuse as schemes do."""
    return from_node("transform", Transform, node, dims)
