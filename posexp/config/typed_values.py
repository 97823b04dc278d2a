"""Configurations from plain values that have exactly the types of their options, as posexp writes them.

OmegaConf also converts values and explains what is wrong with them, but takes 30 ms for each configuration.
"""

from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from posexp.errors import Misuse

Kind = TypeVar("Kind")
MISSING = "???"  # of OmegaConf


def typed_config(kind: type[Kind], values: dict[Any, Any]) -> Kind | None:
    """Return the configuration; None unless each option is known and has its type and range."""
    try:
        found: Kind = typed(kind, values)
    except (TypeError, ValueError, Misuse):
        return None
    return found


def typed(kind: Any, value: Any) -> Any:
    """Return `value` as a `kind`. Raises TypeError or ValueError if it is not one, Misuse if it is out of range."""
    if isinstance(kind, UnionType):
        return None if value is None and NoneType in get_args(kind) else typed(get_args(kind)[0], value)
    if is_dataclass(kind) and isinstance(kind, type):
        hints, needed = options_of(kind)
        if not isinstance(value, dict) or not needed <= value.keys() <= hints.keys():
            raise TypeError
        return kind(**{name: typed(hints[name], inner) for name, inner in value.items()})
    if get_origin(kind) is list and isinstance(value, list):
        return [typed(get_args(kind)[0], inner) for inner in value]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if value == MISSING or (kind is not Any and type(value) is not kind):
        raise TypeError
    return value


@cache
def options_of(kind: type) -> tuple[dict[str, Any], set[str]]:
    """Return the types of the options, and the names of those without a default."""
    hints, options = get_type_hints(kind), fields(kind)
    return {option.name: hints[option.name] for option in options}, {o.name for o in options if o.default == MISSING}
