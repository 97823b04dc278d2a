"""What was probably meant by a word that a command does not have: found among its knobs and its named choices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from posexp.config.commands import COMMANDS
from posexp.config.sections import config_dir

MOST = 3  # suggestions of one line
CLOSE = 0.75  # of a flag: less is another word


@dataclass(frozen=True)
class Knob:
    """A field of a command or of one of its sections, under its dotted key."""

    key: str
    type: Any
    field: Any

    @property
    def last(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def words(self) -> list[str]:
        """The values that it has by name, if these are all that there are."""
        kinds = [kind for kind in (self.type, *get_args(self.type)) if isinstance(kind, type)]
        return [each.name for kind in kinds if issubclass(kind, Enum) for each in kind]


def knobs_of(section: type, prefix: str = "") -> Iterator[Knob]:
    """Every knob of a config dataclass and of its sections."""
    types = get_type_hints(section)
    for field in fields(section):
        if inner := section_of(field):
            yield from knobs_of(inner, f"{prefix}{field.name}.")
        else:
            yield Knob(prefix + field.name, types[field.name], field)


def section_of(field: Any) -> type | None:
    """The dataclass that a field of a config is, if it is one."""
    inner = field.metadata["choices_of"] or field.default_factory
    return inner if isinstance(inner, type) and is_dataclass(inner) else None


def groups_of(command: str, folders: Sequence[Path] | None = None) -> dict[str, list[str]]:
    """The named choices that act in a command, by what chooses one: "+scheme", "model".

    They are those of the command's own fields; those of no command's field (experiments) choose a scheme, and act where
    there is one. `folders` are searched, by default posexp's own.
    """
    named: dict[str, set[str]] = {}
    for folder in folders or [config_dir()]:
        for path in folder.glob("*/*.yaml"):
            named.setdefault(path.parent.name, set()).add(path.stem)
    own = {field.name: field for field in fields(COMMANDS[command])}
    every = {field.name for each in COMMANDS.values() for field in fields(each)}
    found = {}
    for group in sorted(named):
        if group in own:
            plus = "" if section_of(own[group]) or own[group].default is None else "+"
            found[plus + group] = sorted(named[group])
        elif group not in every and "scheme" in own:
            found["+" + group] = sorted(named[group])
    return found


def searched() -> list[Path]:
    """posexp's configs, and the user's own that --config-dir names."""
    from hydra.core.hydra_config import HydraConfig

    return [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]


def of_key(command: str, key: str, value: str) -> str:
    """After "no key 'lr'": the fields whose last part it is, or the closest; with the value that was given."""
    knobs = [knob.key for knob in knobs_of(COMMANDS[command])] + scheme_options(command)
    last = key.rpartition(".")[2]
    same = [known for known in knobs if known.rpartition(".")[2] == last and known != key]
    if 0 < len(same) <= MOST:
        return f": say {either(f'{known}={value}' for known in same)}"
    close = get_close_matches(key, knobs, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; posexp {command} --help lists all"


def of_section(command: str, key: str, value: str) -> str | None:
    """What to type in place of a section with a plain value: a knob in it; None if `key` is no section."""
    inside = [knob for knob in knobs_of(COMMANDS[command]) if knob.key.startswith(f"{key}.")]
    if not inside:
        return None
    taking = [f"{knob.key}={value}" for knob in inside if value in knob.words][:MOST]
    some = [f"{knob.key}=…" for knob in inside][:MOST]
    return f"{key} is a section, not a value: say {either(taking or some)}; posexp {command} --help lists all"


def of_word(command: str, word: str) -> str:
    """After "'rope' is not key=value": the choice, value or knob that it names."""
    groups, knobs = groups_of(command), list(knobs_of(COMMANDS[command]))
    found = [f"{group}={word}" for group, names in groups.items() if set(word.split(",")) <= set(names)]
    found += [f"{knob.key}={word}" for knob in knobs if word in knob.words]
    found += [assigned(knob, None) for knob in knobs if knob.last == word]
    if found:
        return f": say {either(found[:MOST])}"
    places = [f"group={word}"] * any(knob.key == "group" for knob in knobs)
    if places and "+scheme" not in groups:  # the command reads runs
        runs = [f"--runs '{word}*'"] * any(knob.key == "runs" for knob in knobs)
        return f": say {either(places + runs)}"
    close = get_close_matches(word, [name for names in groups.values() for name in names], n=1)
    if close:
        return f", did you mean {either(f'{group}={close[0]}' for group in groups if close[0] in groups[group])}?"
    return f"; {general(command)}"


def of_flag(command: str, flag: str, value: str | None, flags: Sequence[str]) -> str:
    """After "no flag --group": the knob or the choice of that name, or the closest of `flags`."""
    name = flag.lstrip("-").replace("-", "_")
    found = [f"{group}={value or '<name>'}" for group in groups_of(command) if group.lstrip("+") == name]
    found = found or [assigned(knob, value) for knob in knobs_of(COMMANDS[command]) if knob.last == name]
    if found:
        return f": say {either(found[:MOST])}"
    close = get_close_matches(flag, flags, n=1, cutoff=CLOSE)
    return f"; did you mean {close[0]}?" if close else f"; {general(command)}"


def general(command: str) -> str:
    return f"posexp {command} --help lists what there is, and posexp {command} --cfg job shows what would run"


def assigned(knob: Knob, value: str | None) -> str:
    return f"{knob.key}={value or ('true' if knob.type is bool else '…')}"


def scheme_options(command: str) -> list[str]:
    """`scheme.<option>` for every option of every scheme that posexp has, where a command takes one."""
    from omegaconf import OmegaConf

    if "+scheme" not in groups_of(command):
        return []
    nodes = (OmegaConf.load(path) for path in (config_dir() / "scheme").glob("*.yaml"))
    return sorted({f"scheme.{key!s}" for node in nodes for key in node if key not in ("_target_", "defaults")})


def either(texts: Any) -> str:
    return " or ".join(texts)
