"""The base class of transforms, changes of a trained model for longer inputs, before further training or without."""

import copy
from typing import Any

import torch
from torch import nn

from posexp.config.components import from_node, options_of
from posexp.dims import Dims
from posexp.errors import Inapplicable
from posexp.schemes import Scheme
from posexp.windows import Window


class NotApplicable(Inapplicable):
    """A transform that has nothing to change in a scheme."""


class Transform:
    """A change of the scheme, and if necessary of the window, of a trained run.

    A subclass takes `dims` first and then its options, typed and without defaults. The defaults are in
    configs/transform/<name>.yaml.
    """

    def __init__(self, dims: Dims):
        self.dims = dims

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        """Return the changed scheme and window for inputs of at most `length` tokens. The arguments stay unchanged.

        Raises NotApplicable if the scheme has nothing that this transform changes.
        """
        raise NotImplementedError

    def model(self, model: nn.Module) -> nn.Module:
        """Return the decoder with other weights, for a transform that changes them; the argument stays unchanged."""
        return model

    def unchanged(self, length: int) -> bool:
        """Return whether inputs of at most `length` tokens are known to be read as without the transform."""
        return False

    def describe(self, length: int) -> str:
        """Return a short description of the change for inputs of at most `length` tokens, its name in rows."""
        return type(self).__name__

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        """Return the change as `rope_parameters` in a config of transformers, for inputs of at most `length` tokens.

        `given` are the parameters of the model as trained, with `rotary_dim` rotated channels in a head. Raises
        NotApplicable if transformers has no equal change.
        """
        raise NotApplicable(f"{self.describe(length)} has no equivalent in transformers")

    def stretch(self, length: int, factor: float | None) -> float:
        """Return `factor`, or for None the ratio of `length` to the training length, at least 1."""
        return max(1.0, length / self.dims.train_length) if factor is None else factor


def parts_in_use(scheme: Scheme, kind: type, what: str) -> tuple[Scheme, list[Any]]:
    """Return a copy of `scheme`, and its parts of class `kind`: the copy itself, or schemes inside.

    Raises NotApplicable if no part is of that class, named `what`, or the scheme reads no positions, or dropped them.
    """
    if not scheme.reads_positions:
        raise NotApplicable(f"{scheme.fingerprint()} reads no positions")
    twin = copy.deepcopy(scheme)
    parts = [part for part in twin.modules() if isinstance(part, kind)]
    if not parts:
        raise NotApplicable(f"{scheme.fingerprint()} has no {what}")
    return twin, parts


def check_counted(scheme: Scheme) -> None:
    """Raise NotApplicable if positions are drawn, since a rule can only change positions counted from 0."""
    some = min(8, scheme.dims.train_length)
    if not torch.equal(scheme.positions(1, some, torch.device("cpu")), torch.arange(some)[None]):
        raise NotApplicable(f"{scheme.fingerprint()} draws its positions at evaluation")


def build_transform(name: str, dims: Dims, **options: Any) -> Transform:
    """Return the transform of configs/transform/`name`.yaml with `options` in place of its defaults."""
    return from_config(options_of("transform", name, options), dims)


def from_config(node: dict[str, Any], dims: Dims) -> Transform:
    """Return the transform that a config section describes. Raises Misuse as schemes do."""
    return from_node("transform", Transform, node, dims)
