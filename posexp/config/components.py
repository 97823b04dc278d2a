"""The components that a config names by `_target_`, such as schemes and windows, built from plain values.

The class of a component takes `dims` first and then typed options. The YAML file of the component holds the defaults.
An option that is newer than stored runs also has a default in the constructor: the value that old runs imply.
"""

import ast
import inspect
import os
import re
import sys
from dataclasses import field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from posexp.config.sections import config_dir
from posexp.config.values import plain_value
from posexp.errors import Misuse, did_you_mean

Part = TypeVar("Part")


def read_options(path: Path) -> dict[str, Any]:
    """Load `_target_` and the options of a component's YAML file, with the components of its defaults list inside."""
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    inside = {}
    for entry in node.pop("defaults", []):
        if isinstance(entry, dict):  # /scheme@inner: rope
            ((group, name),) = entry.items()
            here, own = path.parent / f"{name}.yaml", config_dir() / path.parent.name / f"{name}.yaml"
            inside[str(group).partition("@")[2]] = read_options(here if here.is_file() else own)
    return {**{str(key): value for key, value in node.items()}, **inside}


def options_of(kind: str, name: str, hyper: dict[str, Any]) -> dict[str, Any]:
    """Load configs/`kind`/`name`.yaml, with `hyper` over its defaults. Raises Misuse for an unknown name or option."""
    folder = config_dir() / kind
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise Misuse(f"no {kind} {name!r}; there are {known}")
    node = read_options(path)
    if unknown := hyper.keys() - node.keys():
        options = ", ".join(key for key in node if key != "_target_") or "(it has none)"
        raise Misuse(f"{kind} {name} has no option {sorted(unknown)[0]!r}; its options: {options}")
    return {**node, **hyper}


def from_node(kind: str, base: type[Part], node: dict[str, Any], dims: Any) -> Part:
    """Build the component that a config section describes by `_target_` and options. Raises Misuse for bad ones."""
    part_class, options = typed_options(kind, base, node)
    return part_class(dims, **options)


def typed_options(kind: str, base: type, node: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the class that a config section names, and its options, each of its type. Raises Misuse as `from_node`."""
    part_class: Any = class_of(kind, base, node)
    parameters = parameters_of(part_class)
    values = {key: value for key, value in node.items() if key != "_target_"}
    raw = {p.name: values.pop(p.name) for p in parameters if p.annotation is Any and p.name in values}
    fields = [
        (p.name, p.annotation, field(default=MISSING if p.default is p.empty else p.default))
        for p in parameters
        if p.name not in raw
    ]
    known = [p.name for p in parameters]
    for unknown in (key for key in values if key not in known):
        place = f"{kind} {str(node['_target_']).rpartition('.')[2]}"
        has = f"its options: {', '.join(known)}" if known else "it takes no options"
        raise Misuse(
            f"{place} has no option {unknown!r}: {has}. If an experiment sets it, keep the {kind} that it chooses"
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(make_dataclass("Options", fields)), values)
        typed = OmegaConf.to_container(merged, throw_on_missing=True)
    except OmegaConfBaseException as error:
        option = f"{error.full_key}: " if error.full_key else ""
        raise Misuse(f"{kind} {node['_target_']}: {option}{str(error).splitlines()[0]}") from error
    assert isinstance(typed, dict)
    return part_class, {**{str(key): value for key, value in typed.items()}, **raw}


def class_of(kind: str, base: type[Part], node: dict[str, Any]) -> type[Part]:
    """Import the class that `_target_` names. Raises Misuse if that fails or the class is not a `base`."""
    from hydra.utils import get_class

    target = node.get("_target_") if isinstance(node, dict) else None
    if not target:
        raise Misuse(f"the config of the {kind} has no _target_: name its class there")
    if not str(target).startswith("posexp.") and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # external components are imported from the working directory
    try:
        part_class = get_class(target)
    except Exception as error:  # Hydra wraps whatever an external module raises
        raise Misuse(f"cannot import the {kind} {target}: {error.__cause__ or error}") from error
    if not issubclass(part_class, base):
        raise Misuse(f"{target} is not a {base.__module__}.{base.__name__}")
    return part_class


def parameters_of(part_class: type) -> list[inspect.Parameter]:
    """Return the options of a component's constructor: the parameters after self and dims."""
    return list(inspect.signature(part_class.__init__).parameters.values())[2:]  # type: ignore[misc]


def targets(node: Any) -> list[str]:
    """Return every `_target_` that building `node` would import."""
    if isinstance(node, list):
        return [target for value in node for target in targets(value)]
    if not isinstance(node, dict):
        return []
    own = [str(node["_target_"])] if "_target_" in node else []
    return own + [target for value in node.values() for target in targets(value)]


def is_own(target: str) -> bool:
    """Return whether a `_target_` is a component of a posexp run, not an object that its modules import."""
    kinds = "schemes|windows|temperatures|transforms|mixers"
    return re.fullmatch(rf"posexp\.({kinds})(\.[a-z]\w*)?\.[A-Z]\w*", target, re.ASCII) is not None


def lean(node: Any) -> Any:
    """Return `node` without the options that have the constructor's default, so that old runs keep their names."""
    if not isinstance(node, dict):
        return node
    later = defaults_of(str(node.get("_target_")))
    return {key: lean(value) for key, value in node.items() if key not in later or plain_value(value) != later[key]}


@cache
def defaults_of(target: str) -> dict[str, Any]:
    """Return the options of a component's constructor that have a default, as plain values.

    A class of posexp is read from its source, because a name of a run must not take the import of PyTorch. A default is
    a literal there or a member of an enum, named as its value. An external class is imported.
    """
    if not is_own(target):
        try:
            options = parameters_of(class_of("part", object, {"_target_": target}))
        except Misuse:
            return {}
        return {p.name: plain_value(p.default) for p in options if p.default is not p.empty}
    made = constructor(target)
    found = {}
    for option, default in zip(reversed(made.args.args), reversed(made.args.defaults), strict=False) if made else ():
        found[option.arg] = default.attr if isinstance(default, ast.Attribute) else ast.literal_eval(default)
    return found


def constructor(target: str) -> ast.FunctionDef | None:
    """Return the source of the constructor of a class of posexp, its own or the one that it inherits."""
    module, _, name = target.rpartition(".")
    place = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    tree = ast.parse(file.read_text() if file.is_file() else "")
    homes = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name):
        own = [node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
        bases = [homes.get(base.id, f"{module}.{base.id}") for base in kind.bases if isinstance(base, ast.Name)]
        return next((made for made in (*own, *map(constructor, filter(is_own, bases))) if made), None)
    return None


def folders_of(kind: str) -> list[Path]:
    """Return the folders of one kind in posexp's configs and in --config-dir."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources
    return list(dict.fromkeys(Path(source.path) / kind for source in sources if source.schema == "file"))


def chosen(names: list[str], folders: list[Path]) -> dict[str, Path]:
    """Return the files of these schemes or of all; the first folder wins. Raises Misuse for an unknown name."""
    there: dict[str, Path] = {}
    for path in sorted((path for folder in folders for path in folder.glob("*.yaml")), key=lambda path: path.stem):
        there.setdefault(path.stem, path)
    for name in names:
        if name not in there:
            raise Misuse(f"no scheme {name!r}{did_you_mean(name, list(there))}; posexp schemes lists all")
    return {name: there[name] for name in names or there}
