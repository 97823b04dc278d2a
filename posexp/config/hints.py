"""Suggestions for a word that a command does not have, from its options and its named choices."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from enum import EnumType
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from posexp.config.commands import COMMANDS, GROUPS
from posexp.config.sections import config_dir

MOST = 3  # suggestions per line
PARTS = ("scheme", "window", "temperature", "mixer")  # groups whose choices have options of their own
CLOSE = 0.75  # smallest similarity of a suggested flag


@dataclass(frozen=True)
class Knob:
    """An option: a field of a command or of one of its sections, with its dotted key."""

    key: str
    type: Any
    field: Any

    @property
    def last(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def scalar(self) -> Any:
        """The type of one value."""
        return str if self.field.metadata["text"] else scalar_of(self.type)

    @property
    def nullable(self) -> bool:
        return self.field.metadata["text"] or NoneType in get_args(self.type)

    @property
    def words(self) -> list[str]:
        """The names of all values of an enum; none for other types."""
        return list(self.scalar.__members__) if isinstance(self.scalar, EnumType) else []

    def set_to(self, value: str | None) -> str:
        """Return what to type for a value, with `…` for a value that is not known."""
        return f"{self.key}={value or ('true' if self.type is bool else '…')}"


def scalar_of(hint: Any) -> Any:
    """Return the type of one value: str for list[str] | None."""
    inner = [arg for arg in get_args(hint) if arg is not NoneType]
    return scalar_of(inner[0]) if inner and get_origin(hint) is not dict else hint


@cache
def knobs_of(section: Any, prefix: str = "") -> list[Knob]:
    """Return every option of a config dataclass and of its sections."""
    found: list[Knob] = []
    types = get_type_hints(section)
    for field in fields(section):
        inner = field.metadata["choices_of"] or scalar_of(types[field.name])
        if hasattr(inner, "__dataclass_fields__"):
            found += knobs_of(inner, f"{prefix}{field.name}.")
        else:
            found.append(Knob(prefix + field.name, types[field.name], field))
    return found


def groups_of(command: str, folders: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Return the named choices of a command in posexp's configs and in `folders`, by the key that selects one."""
    return {key: names_of(key.lstrip("+"), folders) for key in sorted(GROUPS[command], key=lambda key: key.lstrip("+"))}


def names_of(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return the choices of a config group in posexp's configs and in `folders`."""
    return sorted({path.stem for folder in (config_dir(), *folders) for path in folder.glob(f"{group}/*.yaml")})


def of_key(command: str, key: str, value: str) -> str:
    """Return what follows "no key 'lr'": the options with that last part, or the closest one, with the typed value."""
    knobs = [knob.key for knob in knobs_of(COMMANDS[command])]
    if "+scheme" in GROUPS[command]:
        files = [path for group in PARTS for path in (config_dir() / group).glob("*.yaml")]
        knobs += sorted({option for path in files for option in part_options(path)})
    last = key.rpartition(".")[2]
    same = [known for known in knobs if known.rpartition(".")[2] == last and known != key]
    if 0 < len(same) <= MOST:
        return f": use {either(f'{known}={value}' for known in same)}"
    close = get_close_matches(key, knobs, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; posexp {command} --help lists all"


def of_section(command: str, key: str, value: str) -> str | None:
    """Return which options to type in place of a section with a plain value, or None if `key` is not a section."""
    inside = [knob for knob in knobs_of(COMMANDS[command]) if knob.key.startswith(f"{key}.")]
    if not inside:
        return None
    taking = [f"{knob.key}={value}" for knob in inside if value in knob.words][:MOST]
    some = [f"{knob.key}=…" for knob in inside][:MOST]
    return f"{key} is a section, not a value: use {either(taking or some)}; posexp {command} --help lists all"


def of_word(command: str, word: str) -> str:
    """Return what follows "'rope' is not key=value": the choice, value or option of that name."""
    groups, knobs = groups_of(command), knobs_of(COMMANDS[command])
    found = [f"{group}={word}" for group, names in groups.items() if set(word.split(",")) <= set(names)]
    found += [f"{knob.key}={word}" for knob in knobs if word in knob.words]
    found += [knob.set_to(None) for knob in knobs if knob.last == word]
    if found:
        return f": use {either(found[:MOST])}"
    keys = {knob.key for knob in knobs}
    if "group" in keys and "+scheme" not in groups:  # the command reads runs
        places = [f"group={word}", *([f"--runs '{word}*'"] if "runs" in keys else [])]
        return f": use {either(places)}"
    close = get_close_matches(word, [name for names in groups.values() for name in names], n=1)
    if close:
        return f", did you mean {either(f'{group}={close[0]}' for group in groups if close[0] in groups[group])}?"
    return f"; {general(command)}"


def of_flag(command: str, flag: str, value: str | None, flags: Sequence[str]) -> str:
    """Return what follows "no flag --group": the option or choice of that name, or the closest of `flags`."""
    name = flag.lstrip("-").replace("-", "_")
    found = [f"{group}={value or '<name>'}" for group in groups_of(command) if group.lstrip("+") == name]
    found = found or [knob.set_to(value) for knob in knobs_of(COMMANDS[command]) if knob.last == name]
    if found:
        return f": use {either(found[:MOST])}"
    close = get_close_matches(flag, flags, n=1, cutoff=CLOSE)
    return f"; did you mean {close[0]}?" if close else f"; {general(command)}"


def general(command: str) -> str:
    return f"posexp {command} --help lists all options, and posexp {command} --cfg job shows the composed config"


def part_options(path: Path) -> list[str]:
    """Return `<group>.<option>` for every option in the YAML file of a config group."""
    names = re.findall(r"^([a-z]\w*):", path.read_text(), re.M)
    return [f"{path.parent.name}.{name}" for name in names if name != "defaults"]


def either(texts: Any) -> str:
    return " or ".join(texts)
