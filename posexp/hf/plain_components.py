"""posexp/config/components.py of an exported folder: components from typed values, without Hydra and OmegaConf."""

import inspect
from enum import Enum
from importlib import import_module
from typing import Any, TypeVar

from posexp.errors import Misuse

Part = TypeVar("Part")


def from_node(kind: str, base: type[Part], node: dict[str, Any], dims: Any) -> Part:
    """Build the component of a config section, whose options the export has typed."""
    part_class: Any = class_of(kind, base, node)
    options = inspect.signature(part_class.__init__).parameters
    return part_class(dims, **{key: typed(options[key].annotation, node[key]) for key in node if key != "_target_"})


def class_of(kind: str, base: type[Part], node: dict[str, Any]) -> type[Part]:
    """Import the class of a `_target_` such as posexp.schemes.alibi.Alibi, whose file is posexp_schemes_alibi.py."""
    module, _, name = node["_target_"].rpartition(".")
    found: type[Part] = getattr(import_module("." + module.replace(".", "_"), __package__), name)
    return found


def typed(annotation: Any, value: Any) -> Any:
    """Return a member of an enum for its value, and any other value as it is."""
    return annotation(value) if isinstance(annotation, type) and issubclass(annotation, Enum) else value


def options_of(kind: str, name: str, hyper: dict[str, Any]) -> dict[str, Any]:
    """Raise Misuse, because an exported folder has no components but those of its model."""
    raise Misuse(f"an exported model has no {kind} {name!r}: give a config section with _target_")
