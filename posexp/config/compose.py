"""The conversion of a config that Hydra composed to the dataclass of its command."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from posexp.config.commands import COMMANDS
from posexp.config.hints import of_key
from posexp.errors import Misuse


def typed(config: DictConfig) -> object:
    """Return the command's dataclass. Raises Misuse for a key beyond the schema or a bad value."""
    schema = OmegaConf.get_type(config)
    assert schema is not None
    (command,) = (name for name, each in COMMANDS.items() if each is schema)
    for key in smuggled(config):
        raise Misuse(f"no key {key!r}{of_key(command, key, str(OmegaConf.select(config, key)))}")
    values = {knob_.name: value_of(config, knob_) for knob_ in fields(schema)}
    return schema(**values)


def value_of(config: DictConfig, knob_: Any) -> Any:
    """Return the value of a field. A section with `choices_of` becomes the dict of its chosen options."""
    if not knob_.metadata["choices_of"]:
        value = config[knob_.name]
        return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    section = config[knob_.name]
    made = {str(key): section[key] for key in section if not OmegaConf.is_missing(section, key)}
    return {key: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value for key, value in made.items()}


def schema_of(command: type) -> Any:
    """Return the command's node for Hydra's config store. In a section with `choices_of`, every field is MISSING."""
    node = OmegaConf.structured(command)
    for knob_ in fields(command):
        if section := knob_.metadata["choices_of"]:
            node[knob_.name] = OmegaConf.structured(section)
            for key in fields(section):
                node[knob_.name][key.name] = MISSING
    return node


def smuggled(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys that are not in the schema, which Hydra lets `+` add anywhere."""
    known = getattr(OmegaConf.get_type(config), "__dataclass_fields__", {})
    for key in map(str, config):
        if key not in known:
            yield prefix + key
        elif is_dataclass(OmegaConf.get_type(config, key)):
            yield from smuggled(config[key], f"{prefix}{key}.")
