"""The parsing of option values, on the command line and in YAML, by the type of the option.

Hydra and YAML parse 2024_11_28, 1e3, true and 0x10 as numbers and booleans before they know the type of the option.
Here a text option keeps its text, and an option of whole numbers accepts short forms: 1e6, 2.5M, 512k.
"""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from posexp.config.commands import COMMANDS
from posexp.config.values import default_of

SHORT = re.compile(r"([+-]?\d[\d_]*(?:\.\d+)?)(?:[eE]\+?(\d{1,2})|([kKMB]))")
ZEROS = {"k": 3, "K": 3, "M": 6, "B": 9}
SWEEPS = {"choice", "shuffle", "sort", "tag"}  # Hydra's functions whose arguments are values of the option
TAG = "tag:yaml.org,2002:"  # of YAML's own types


class Option(NamedTuple):
    type: type  # str or int
    nullable: bool
    default: Any


NAME = Option(str, True, None)  # a choice of a config group


def count(text: str) -> int | None:
    """Return the whole number that is written as 1e6, 10M, 2.5M or 512k (k is 1,000); None for any other text."""
    if not (match := SHORT.fullmatch(text)):
        return None
    digits, exponent, suffix = match.groups()
    value = Decimal(digits.replace("_", "")).scaleb(int(exponent or 0) + ZEROS.get(suffix, 0))
    return int(value) if value == value.to_integral_value() else None


def quoted(text: str) -> str:
    """Return `text` quoted for Hydra's override grammar, where `=`, `,` and brackets are syntax."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# ---- types of options


@cache
def options(section: type) -> dict[str, Option]:
    """Return every option of a config dataclass that holds text or whole numbers, by its dotted key."""
    found: dict[str, Option] = {}
    hints = get_type_hints(section)
    for knob_ in fields(section):
        hint = knob_.metadata["choices_of"] or hints[knob_.name]
        scalar = str if knob_.metadata["text"] else scalar_of(hint)
        if is_dataclass(scalar):
            found |= {f"{knob_.name}.{key}": option for key, option in options(scalar).items()}
        elif scalar in (str, int):
            nullable = knob_.metadata["text"] or type(None) in get_args(hint)
            found[knob_.name] = Option(scalar, nullable, default_of(knob_))
    return found


def scalar_of(hint: Any) -> Any:
    """Return the type of one value: str for list[str] | None."""
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    return scalar_of(inner[0]) if inner and get_origin(hint) is not dict else hint


@cache
def named(kind: type) -> set[str]:
    """Return the last part of the key of every option of type `kind`, over all commands."""
    found = [(key, option) for command in COMMANDS.values() for key, option in options(command).items()]
    return {key.rpartition(".")[2] for key, option in found if option.type is kind}


# ---- on the command line


def settle(command: str, overrides: list[str]) -> list[str]:
    """Return `overrides` with quotes around text that Hydra would parse as another type, and with counts in full."""
    known = options(COMMANDS[command])
    return [settled(word, known.get(word.partition("=")[0].lstrip("+"))) for word in overrides]


def settled(override: str, option: Option | None) -> str:
    if option is None:
        return override
    from hydra.errors import HydraException
    from hydra.grammar.gen.OverrideLexer import OverrideLexer

    try:
        found = list(primitives(parsed(override)))
    except HydraException:
        return override  # Hydra raises for it later, with the word as typed
    converted = {OverrideLexer.INT, OverrideLexer.FLOAT, OverrideLexer.BOOL, OverrideLexer.NULL}
    for node in reversed(found):
        text = override[node.start.start : node.stop.stop + 1]
        token = node.start.type if node.start is node.stop else None
        if option.type is int:
            number = count(text.strip("'\""))
            text = text if number is None else str(number)
        elif token == OverrideLexer.NULL and (option.nullable or option.default == ""):
            text = text if option.nullable else "''"
        elif token in converted:
            text = quoted(text)
        override = override[: node.start.start] + text + override[node.stop.stop + 1 :]
    return override


def parsed(override: str) -> Any:
    """Return the parse tree of an override in Hydra's grammar. Raises HydraException for a syntax error."""
    from hydra.core.override_parser.overrides_parser import CommonTokenStream, HydraErrorListener, InputStream
    from hydra.grammar.gen.OverrideLexer import OverrideLexer
    from hydra.grammar.gen.OverrideParser import OverrideParser

    lexer = OverrideLexer(InputStream(override))
    parser = OverrideParser(CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(HydraErrorListener())
    return parser.override()


def primitives(node: Any) -> Iterator[Any]:
    """Yield the values in a parse tree, in order, but not arguments of functions such as range."""
    from hydra.grammar.gen.OverrideParser import OverrideParser

    if isinstance(node, OverrideParser.PrimitiveContext):
        yield node
    elif not isinstance(node, OverrideParser.FunctionContext) or node.ID().getText() in SWEEPS:
        for child in getattr(node, "children", None) or []:
            yield from primitives(child)


# ---- in YAML


class TypedLoader(yaml.constructor.SafeConstructor):
    """A base class for loaders that types plain scalars as their options, matched by the last part of the key.

    Values of a mapping are retagged before they are constructed. Raises ConstructorError for a duplicate key.
    """

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {twice!r}", node.start_mark)
        for key, value in node.value:
            name = str(key.value).rpartition(".")[2]
            for scalar in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(scalar, yaml.ScalarNode) or scalar.style:
                    continue
                if name in named(str) and scalar.tag in {f"{TAG}int", f"{TAG}float", f"{TAG}bool"}:
                    scalar.tag = f"{TAG}str"
                elif name in named(int) and (number := count(scalar.value)) is not None:
                    scalar.tag, scalar.value = f"{TAG}int", str(number)
        return super().construct_mapping(node, deep=deep)


class ConfigLoader(TypedLoader, get_yaml_loader()):  # type: ignore[misc]
    """OmegaConf's loader of YAML, with typed options."""


def load_config(source: FileConfigSource, config_path: str) -> ConfigResult:
    """Load a file of configs/ or of --config-dir with typed options, as FileConfigSource.load_config does without."""
    path = Path(source.path, source._normalize_file_name(config_path))
    if not path.exists():
        raise ConfigLoadError(f"Config not found : {path}")
    with path.open(encoding="utf-8") as file:
        header = source._get_header_dict(file.read(512))
        file.seek(0)
        config = OmegaConf.create(ConfigLoader(file).get_single_data() or {})
    return ConfigResult(source.provider, f"{source.scheme()}://{source.path}", config, header)


def read_typed() -> None:
    """Make Hydra load its YAML with typed options.

    The method is replaced, not the class: launchers pickle Hydra's registry of classes, and Hydra refuses two.
    """
    SourcesRegistry.instance().types[FileConfigSource.scheme()].load_config = load_config  # type: ignore[assignment]
