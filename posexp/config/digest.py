"""What defines a run's result, out of all that its configuration holds; `digest` names a run by it."""

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any

from posexp.config.values import default_of, plain_value


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
            found[knob_.name] = plain_value(value)
    return found
