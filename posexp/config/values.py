"""Configurations as plain values for JSON and YAML, and back."""

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

REQUIRED = "???"  # OmegaConf's mark of an option without a value


def default_of(knob_: Any) -> Any:
    return knob_.default if knob_.default is not MISSING else knob_.default_factory()


def plain_value(value: Any) -> Any:
    """Return `value` as JSON and YAML can store it."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {knob_.name: plain_value(getattr(value, knob_.name)) for knob_ in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(inner) for inner in value]
    return value


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"a.b": 1} for {"a": {"b": 1}}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def typed_value(kind: Any, value: Any) -> Any:
    """Return `value`, as posexp writes it, as a `kind`: a config dataclass or a type of its options.

    OmegaConf also converts other values, and explains what is wrong with them, but takes 30 ms for each configuration.
    Raises TypeError or ValueError unless the value has its type and each option is known, Misuse if it is out of range.
    """
    if isinstance(kind, UnionType):
        return None if value is None and NoneType in get_args(kind) else typed_value(get_args(kind)[0], value)
    if is_dataclass(kind) and isinstance(kind, type):
        hints, needed = options_of(kind)
        if not isinstance(value, dict) or not needed <= value.keys() <= hints.keys():
            raise TypeError
        return kind(**{name: typed_value(hints[name], inner) for name, inner in value.items()})
    if get_origin(kind) is list and isinstance(value, list):
        return [typed_value(get_args(kind)[0], inner) for inner in value]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if value == REQUIRED or (kind is not Any and type(value) is not kind):
        raise TypeError
    return value


@cache
def options_of(kind: type) -> tuple[dict[str, Any], set[str]]:
    """Return the types of the options, and the names of those without a default."""
    hints, options = get_type_hints(kind), fields(kind)
    return {option.name: hints[option.name] for option in options}, {o.name for o in options if o.default == REQUIRED}
