"""What Hydra composed, as the command's dataclass."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from posexp.config.commands import COMMANDS
from posexp.config.hints import of_key
from posexp.errors import Misuse


def typed(config: DictConfig) -> object:
    """The command's dataclass. Raises Misuse for a key that `+` has smuggled in, or a value out of range."""
    schema = OmegaConf.get_type(config)
    assert schema is not None
    (command,) = (name for name, each in COMMANDS.items() if each is schema)
    for key in smuggled(config):
        raise Misuse(f"no key {key!r}{of_key(command, key, str(OmegaConf.select(config, key)))}")
    values = {knob_.name: value_of(config, knob_) for knob_ in fields(schema)}
    return schema(**values)


def value_of(config: DictConfig, knob_: Any) -> Any:
    """A field of the command; of a section of choices, those that were made."""
    if not knob_.metadata["choices_of"]:
        value = config[knob_.name]
        return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    section = config[knob_.name]
    made = {str(key): section[key] for key in section if not OmegaConf.is_missing(section, key)}
    return {key: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value for key, value in made.items()}


def schema_of(command: type) -> Any:
    """The command for Hydra's config store. A section of choices has the fields of its dataclass, all missing."""
    node = OmegaConf.structured(command)
    for knob_ in fields(command):
        if section := knob_.metadata["choices_of"]:
            node[knob_.name] = OmegaConf.structured(section)
            for key in fields(section):
                node[knob_.name][key.name] = MISSING
    return node


def smuggled(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted keys that the schema does not have: Hydra lets `+` add them anywhere."""
    known = getattr(OmegaConf.get_type(config), "__dataclass_fields__", {})
    for key in map(str, config):
        if key not in known:
            yield prefix + key
        elif is_dataclass(OmegaConf.get_type(config, key)):
            yield from smuggled(config[key], f"{prefix}{key}.")
