"""The parsing of option values, on the command line and in YAML, by the type of the option.

Hydra and YAML parse 2024_11_28, 1e3, true and 0x10 as numbers and booleans before they know the type of the option.
Here a text option keeps its text, and an option of whole numbers accepts short forms: 1e6, 2.5M, 512k.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from typing import Any

import yaml

from posexp.config.commands import COMMANDS, GROUPS
from posexp.config.fields import knob
from posexp.config.hints import Knob, knobs_of, names_of
from posexp.config.values import default_of
from posexp.errors import Misuse

SHORT = re.compile(r"([+-]?\d[\d_]*(?:\.\d+)?)(?:[eE]\+?(\d{1,2})|([kKMB]))")
ZEROS = {"k": 3, "K": 3, "M": 6, "B": 9}
SWEEPS = {"choice", "shuffle", "sort", "tag"}  # Hydra's functions whose arguments are values of the option
# A value, quoted or not, between commas and brackets.
ITEM = re.compile(r"""((?:^|[\[(,])\s*)('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^][(){},'"\s]+)(\s*(?=$|[\]),]))""")
# Text that Hydra parses as a number, a boolean or null.
CONVERTED = re.compile(r"[+-]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)(e[+-]?\d[\d_]*)?|[+-]?(inf|nan)|true|false|null", re.I)
NO_SCHEME = "scheme=[]"  # how Hydra composes none
TAG = "tag:yaml.org,2002:"  # of YAML's own types


NAME = Knob("", str, knob(None, "a choice of a config group", text=True))


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


@cache
def option_names(kind: type) -> set[str]:
    """Return the last part of the key of every option of type `kind`, over all commands."""
    return {knob_.last for command in COMMANDS.values() for knob_ in knobs_of(command) if knob_.scalar is kind}


# ---- on the command line


def settle(command: str, words: list[str]) -> list[str]:
    """Return overrides as Hydra composes them: text quoted, counts in full, and choices of config groups without `+`.

    The defaults list has every config group but `transform` of eval, so scheme=rope and +scheme=rope are equivalent,
    with or without an experiment that names a scheme. Raises Misuse for a transform in training without a parent, for a
    group that is chosen twice, for a choice of nothing, for a list but of experiments, and for an experiment beside a
    parent.
    """
    known = {knob_.key: knob_ for knob_ in knobs_of(COMMANDS[command])}
    defaults = {group.lstrip("+"): choice for group, choice in GROUPS[command].items()}
    found: list[str] = []
    chosen: set[str] = set()
    child = command == "train" and any(word.startswith(("from=", "parent=")) for word in words)
    for word in words:
        if command == "eval":
            word = word.removeprefix("hf.")  # hf= names the checkpoint
        elif command == "train":
            word = re.sub("^from=", "parent=", word)  # `from` cannot name a field
            if child and word == NO_SCHEME:
                continue
        key, equals, value = word.partition("=")
        name = key.lstrip("+")
        if name == "transform" and equals and command == "eval":
            # each transform has a section, and so its own options and rows
            found += [f"+transform@transform.{each}={each}" for each in value.strip("[]").split(",")]
        elif (group := name.partition("@")[0]) in defaults and equals:
            if value.startswith("[") and group != "experiment":  # several experiments are merged in order
                names = value.strip("[]").replace(" ", "")
                raise Misuse(f"{word} is a list, but a run has one {group}: to train each, type -m +{group}={names}")
            if name == "transform" and not child:
                raise Misuse(
                    f"transforms change a trained run: name it by from=<run>, or posexp eval --lengths … {word}"
                )
            if name == "experiment" and child:
                raise Misuse(f"{word}: the configuration of a run with from= is that of its parent: leave it out")
            if value == "null":
                listed = "posexp schemes lists all" if group == "scheme" else f"there are {', '.join(names_of(group))}"
                raise Misuse(f"{word} chooses nothing: leave it out, or name one; {listed}")
            if name in chosen and defaults[group] in (None, "???"):  # others replace a default, and the last wins
                raise Misuse(f"{name} is chosen twice: choose it once")
            chosen.add(name)
            found.append(settled(f"{name}={value}", NAME))
        else:
            found.append(settled(word, known.get(name)))
    if child:
        # options of what the parent has; and no scheme of configs/
        inherited = {"scheme", "window", "temperature", "transform", "mixer"} - chosen
        found = [f"++{word}" if word.partition(".")[0] in inherited else word for word in found]
        found += [NO_SCHEME] if "scheme" in inherited else []
    return found


def settled(override: str, option: Knob | None) -> str:
    """Return `key=value` with quotes around values that Hydra would parse as another type, and with counts in full.

    A value is the whole text, or an item of a list or of a sweep. Arguments of functions such as range stay unchanged.
    """
    key, equals, text = override.partition("=")
    function = re.match(r"\s*(\w+)\(", text)
    if option is None or not equals or (function and function[1] not in SWEEPS):
        return override
    return key + equals + ITEM.sub(lambda item: item[1] + settled_item(item[2], option) + item[3], text)


def settled_item(text: str, option: Knob) -> str:
    if option.scalar is int:
        number = count(text.strip("'\""))
        return text if number is None else str(number)
    if option.scalar is not str or (option.nullable and text.lower() == "null"):
        return text
    if text.lower() == "null" and default_of(option.field) == "":
        return "''"
    return quoted(text) if CONVERTED.fullmatch(text) else text


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
                if name in option_names(str) and scalar.tag in {f"{TAG}int", f"{TAG}float", f"{TAG}bool"}:
                    scalar.tag = f"{TAG}str"
                elif name in option_names(int) and (number := count(scalar.value)) is not None:
                    scalar.tag, scalar.value = f"{TAG}int", str(number)
        return super().construct_mapping(node, deep=deep)


def read_typed() -> None:
    """Make OmegaConf, and so Hydra, load YAML with typed options."""
    from omegaconf import _utils

    if issubclass(base := _utils.get_yaml_loader(), TypedLoader):
        return

    class ConfigLoader(TypedLoader, base):  # type: ignore[misc, valid-type]
        """OmegaConf's loader of YAML, with typed options."""

    _utils.get_yaml_loader = lambda: ConfigLoader


@contextmanager
def typed_yaml() -> Iterator[None]:
    """Load YAML with typed options in the block alone."""
    from omegaconf import _utils

    before = _utils.get_yaml_loader
    read_typed()
    try:
        yield
    finally:
        _utils.get_yaml_loader = before
