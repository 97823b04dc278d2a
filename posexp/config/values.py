"""Configurations as plain values for JSON and YAML."""

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any


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
