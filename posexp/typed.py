"""What Hydra composed, as the command's dataclass."""

from collections.abc import Iterator
from dataclasses import is_dataclass

from omegaconf import DictConfig, OmegaConf

from posexp.errors import Misuse
from posexp.knobs import meanings
from posexp.refusal import did_you_mean


def typed(config: DictConfig) -> object:
    """The command's dataclass. Raises Misuse for a key that `+` has smuggled in, or a value out of range."""
    schema = OmegaConf.get_type(config)
    assert schema is not None
    names = [name for name, _ in meanings(schema)]
    for key in smuggled(config):
        raise Misuse(f"no key {key!r}{did_you_mean(key, names)}")
    return OmegaConf.to_object(config)


def smuggled(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted keys that the schema does not have: Hydra lets `+` add them anywhere."""
    known = getattr(OmegaConf.get_type(config), "__dataclass_fields__", {})
    for key in map(str, config):
        if key not in known:
            yield prefix + key
        elif is_dataclass(OmegaConf.get_type(config, key)):
            yield from smuggled(config[key], f"{prefix}{key}.")
