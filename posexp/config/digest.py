"""The part of a configuration that defines the result of a run, and its digest, which is part of the run's name."""

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any

from posexp.config.values import default_of, plain_value


def digest(config: Any) -> str:
    """Return eight hex digits of all values but the seed that differ from defaults: new options rename no run."""
    text = json.dumps(identity(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(config: Any) -> dict[str, Any]:
    """Return the nested values of a config dataclass that define its result and differ from the defaults."""
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
