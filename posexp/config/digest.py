"""What defines a run's result, out of all that its configuration holds; `digest` names a run by it."""

import hashlib
import json
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any


def digest(config: Any) -> str:
    """Eight hex digits of all that defines a run except its seed.

    Only values that differ from the defaults count, so that a new knob leaves old runs their names.
    """
    text = json.dumps(identity(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(config: Any) -> dict[str, Any]:
    """The nested values of a config dataclass that define its result and differ from the defaults."""
    found: dict[str, Any] = {}
    for knob_ in fields(config):
        if not knob_.metadata["identity"]:
            continue
        value = getattr(config, knob_.name)
        if knob_.metadata["part"]:
            from posexp.config.components import lean

            value = lean(value)
        if is_dataclass(value):
            if nested := identity(value):
                found[knob_.name] = nested
        elif value != default_of(knob_):
            found[knob_.name] = plain(value)
    return found


def default_of(knob_: Any) -> Any:
    return knob_.default if knob_.default is not MISSING else knob_.default_factory()


def plain(value: Any) -> Any:
    """`value` as JSON and YAML can hold it."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {knob_.name: plain(getattr(value, knob_.name)) for knob_ in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
