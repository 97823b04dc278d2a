"""The composition of a command's config by Hydra, and its conversion to the dataclass of the command."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from posexp.config.commands import COMMANDS, GROUPS
from posexp.config.explain import EXTRAS
from posexp.config.hints import of_key
from posexp.config.overrides import quoted, typed_yaml
from posexp.config.sections import config_dir
from posexp.config.values import plain_value
from posexp.errors import Misuse

Inherit = Callable[[dict[str, Any], list[str]], object]  # from composed values and overrides, if there is a parent
CONTINUED = "continued"  # the label of a run that continues another one with nothing else typed


def register(command: str) -> None:
    """Give Hydra the schema and the primary config of a command, and the resolver of its label."""
    from hydra.core.config_store import ConfigStore

    schema = OmegaConf.structured(COMMANDS[command])
    for knob_ in fields(COMMANDS[command]):
        if section := knob_.metadata["choices_of"]:
            schema[knob_.name] = OmegaConf.structured(section)
            for key in fields(section):
                schema[knob_.name][key.name] = MISSING
    groups = {
        group.lstrip("+"): choice
        for group, choice in GROUPS[command].items()
        if (command, group) != ("eval", "+transform")
    }
    experiment = [{group: groups.pop(group)} for group in ("experiment",) if group in groups]  # overrides the others
    defaults = [f"{command}_schema", *({group: choice} for group, choice in groups.items()), "_self_", *experiment]
    config: dict[str, Any] = {
        "defaults": [*defaults, {"override hydra/job_logging": "none"}],
        "hydra": {"output_subdir": None, "run": {"dir": "."}},
    }
    if command == "train":
        config["defaults"].append({"override hydra/sweeper": "cells"})
        config["hydra"]["sweep"] = {"dir": "${results}/${group}", "subdir": "."}
        config["label"] = "${posexp_label:}"
    ConfigStore.instance().store(name=f"{command}_schema", node=schema)
    ConfigStore.instance().store(name=command, node=config)
    OmegaConf.register_new_resolver("posexp_label", label, replace=True)


def register_launchers() -> None:
    """Register the resolver of configs/hydra/launcher/, and rename each plugin's config to `<name>_schema`, their base.

    Under the same name, Hydra would merge the two by a deprecated mechanism, with a warning.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    OmegaConf.register_new_resolver("posexp_threads", threads, replace=True)
    Plugins.instance()  # finds the installed plugins
    nodes = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for name in EXTRAS:
        if (node := nodes.pop(f"{name}.yaml", None)) is not None:
            ConfigStore.instance().store(name=f"{name}_schema", node=node.node)


def threads(n_jobs: int) -> int:
    """Return the threads per process for `n_jobs` on this machine; -1 means one job per core, -2 one job less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)))


def label(preset: str = "", *parts: str) -> str:
    """Return the names of the scheme, its inner schemes, and what else is chosen: `randomized-alibi-sliding`.

    For the child of a run they are those that are typed, CONTINUED without any. A preset of several components has its
    own name, and those of components that are typed: `rnope_swa-ssmax`. A typed component that changes nothing is
    omitted, unless it replaces one of these `parts` of the preset: `llama4-none`.
    """
    from hydra.core.hydra_config import HydraConfig

    choices = HydraConfig.get().runtime.choices
    others = ("window", "temperature", "transform", "mixer")
    if preset:
        typed = {word.partition("=")[0].lstrip("+") for word in HydraConfig.get().overrides.task}
        replaced = {"scheme", *parts}
        names = [
            choices[key] for key in ("scheme", *others) if key in typed and (key in replaced or acts(choices[key]))
        ]
        return "-".join([preset, *names])
    inner = [key for key in sorted(choices) if key.startswith("scheme@")]
    schemes = [choices.get(key) for key in ("scheme", *inner)]
    return "-".join(filter(None, [*schemes, *filter(acts, map(choices.get, others))])) or CONTINUED


def acts(name: str | None) -> bool:
    """Return whether the choice of a window, temperature, transform or mixer adds one to the model."""
    return name not in (None, "full", "none")


def compose(command: str, overrides: list[str], own: str | None = None, inherit: Inherit | None = None) -> object:
    """Return the dataclass of a command, composed by Hydra from configs/ and the user's own folder."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    register(command)
    folder = config_dir() if own is None else Path(own).expanduser().resolve()
    if not folder.is_dir():
        raise Misuse(f"--config-dir: folder '{own}' not found")
    path = [] if own is None else [f"hydra.searchpath=[{quoted(f'file://{config_dir()}')}]"]
    with typed_yaml(), hydra.initialize_config_dir(str(folder), version_base="1.3"):
        config = hydra.compose(command, [*overrides, *path], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return typed(config, inherit, overrides)


def typed(config: DictConfig, inherit: Inherit | None = None, overrides: Sequence[str] = ()) -> object:
    """Return the command's dataclass, which for the child of a run `inherit` returns (posexp/runs/parent.py)."""
    schema = OmegaConf.get_type(config)
    assert schema is not None
    (command,) = (name for name, each in COMMANDS.items() if each is schema)
    for key in smuggled(config):
        raise Misuse(f"no key {key!r}{of_key(command, key, str(OmegaConf.select(config, key)))}")
    if inherit is not None and OmegaConf.select(config, "parent") is not None:
        return inherit(plain_value(OmegaConf.to_container(config, resolve=True)), list(overrides))
    values: dict[str, Any] = {}
    for knob_ in fields(schema):
        value = config[knob_.name]
        if knob_.metadata["choices_of"]:  # the dict of the chosen options of a section
            chosen: Any = OmegaConf.to_container(value, resolve=True)
            values[knob_.name] = {key: inner for key, inner in chosen.items() if inner != MISSING}
        else:
            values[knob_.name] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    return schema(**values)


def smuggled(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys that are not in the schema, which Hydra lets `+` add anywhere."""
    known = getattr(OmegaConf.get_type(config), "__dataclass_fields__", {})
    for key in map(str, config):
        if key not in known:
            yield prefix + key
        elif is_dataclass(OmegaConf.get_type(config, key)):
            yield from smuggled(config[key], f"{prefix}{key}.")
