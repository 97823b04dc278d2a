"""The translation of posexp's command line to Hydra's.

Only this module uses Hydra's internal config loader and argument parser, both unchanged in Hydra 1.3 and 1.4.
"""

import argparse
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from posexp.config import hints
from posexp.config.commands import COMMANDS
from posexp.config.overrides import NAME, count, quoted, settle, settled
from posexp.config.sections import config_dir
from posexp.errors import Misuse
from posexp.sweeps.launchers import check_launcher
from posexp.sweeps.sweepers import check_study, swept_by_config

OWN_FLAGS = {
    "--lengths": {"train", "eval", "check", "bench"},
    "--runs": {"eval", "report", "inspect", "export"},
    "--group": {"runs"},
    "--verify": {"runs"},
    "--detach": {"train"},
    "--html": {"report"},
    "--all": {"report"},
    "--peers": {"bench"},
}
SWITCHES = {
    "--verify": "verify",
    "--html": "html",
    "--all": "all",
    "--peers": "peers",
    "--detach": "hydra.sweeper.detach",
}
VALUE_FLAGS = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"}
VALUE_FLAGS |= {"--package", "-p", "--info", "-i", "--cfg", "-c"}
DRY_FLAGS = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"}  # these run nothing


DECIDED = re.compile(r"hydra[./](run|sweep|output_subdir|job_logging)([.]|$)|hydra[.]job[.]chdir$")
PLACES = ("results", "group", "folder")  # options that set where files are written


def translate(command: str, words: list[str]) -> list[str]:
    """Translate posexp's own flags and bare words to overrides.

    Raises Misuse for a flag that the command does not have, or a bad value.
    """
    found: list[str] = []
    bare: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if command in POSITIONAL and not word.startswith("-") and not re.match(r"[+~]*[\w./@-]+=", word):
            takes_value = found and found[-1] in VALUE_FLAGS
            (found if takes_value else bare).append(word)
            continue
        if flag.lstrip("+") == "transform" and equals:
            if command != "eval":
                raise Misuse(f"transforms change a trained run: train first, then posexp eval --lengths … {word}")
            # each transform has a section, and so its own options and rows
            found += [f"+transform@transform.{name}={name}" for name in value.strip("[]").split(",")]
            continue
        if flag not in OWN_FLAGS:
            found.append(word.removeprefix("hf.") if command == "eval" else word)  # hf= names the checkpoint
            continue
        if command not in OWN_FLAGS[flag]:
            hint = hints.of_flag(command, flag, value_of(value, rest), [])
            raise Misuse(f"posexp {command} has no flag {flag}{hint}")
        if flag in SWITCHES:
            found.append(f"{SWITCHES[flag]}={value if equals else 'true'}")
            continue
        if not equals:
            if not rest:
                raise Misuse(f"{flag} needs a value")
            value = rest.pop(0)
        key = "lengths" if command in ("check", "bench") else "eval.lengths"
        found.append(f"{key}={numbers(value)}" if flag == "--lengths" else f"{flag[2:]}={quoted(value)}")
    return found + POSITIONAL[command](bare) if bare else found


def value_of(value: str, rest: list[str]) -> str | None:
    """Return the value of a flag: the text after its "=", or the next word unless that is a flag or an override."""
    return value or next((word for word in rest[:1] if not word.startswith("-") and "=" not in word), None)


def named_schemes(words: list[str]) -> list[str]:
    return [f"schemes=[{','.join(map(quoted, words))}]"]


def named_parts(words: list[str]) -> list[str]:
    return [f"names=[{','.join(map(quoted, words))}]"]


def named_run(words: list[str]) -> list[str]:
    """Translate the name of a run, a glob or the path of a run folder. Raises Misuse for more than one word."""
    if len(words) > 1:
        raise Misuse(f"name one run, or several by a quoted glob, got {len(words)}: {' '.join(words)}")
    path = PurePath(words[0])
    places = [f"group={quoted(path.parent.name)}", f"results={quoted(str(path.parent.parent))}"]
    return [f"runs={quoted(path.name)}", *(places if len(path.parts) > 1 else [])]


def named_curves(words: list[str]) -> list[str]:
    return [f"curves=[{','.join(map(quoted, words))}]"]


# The meaning of bare words, as in `posexp check rope xpos`.
POSITIONAL = {
    "check": named_schemes,
    "bench": named_schemes,
    "schemes": named_parts,
    "inspect": named_run,
    "export": named_run,
    "compare": named_curves,
    "power": named_curves,
}


def numbers(text: str) -> str:
    """Return a list such as `512,2048` in Hydra's syntax. Raises Misuse unless all are whole numbers."""
    try:
        lengths = [count(part.strip()) or int(part) for part in text.split(",")]
    except ValueError:
        raise Misuse(f"--lengths takes whole numbers, as in --lengths 512,2048,8192, got {text!r}") from None
    return str(lengths).replace(" ", "")


def hydra_arguments(command: str, words: list[str]) -> list[str]:
    """Return `words` with overrides before flags, and with `+` before the config groups that need it.

    Raises Misuse for an unknown flag, a launcher without -m, or a missing scheme.
    """
    flags, overrides = split_flags(command, words)
    sweeps = bool({"-m", "--multirun"} & set(flags))
    if sweeps and DRY_FLAGS & set(flags):
        raise Misuse("-m runs a sweep and cannot be combined with --help, --cfg or --info")
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key in ("hydra/launcher", "hydra/sweeper", "hydra.sweeper.detach") and not sweeps:
            raise Misuse(f"{'--detach' if key.endswith('detach') else word} only acts in a sweep: add -m")
        if key == "hydra/launcher":
            check_launcher(value)
        check_key(command, word, key, value)
    overrides, choices = settle_groups(command, settle(command, overrides), flags)
    check_chosen(command, overrides, choices)
    if "hydra/sweeper=optuna" in overrides:
        check_study(overrides)
    runs_something = not DRY_FLAGS & {flag.partition("=")[0] for flag in flags}
    if sweeps and "scheme" not in choices:
        choices = choices | swept_by_config(config_loader(flags), command, overrides)
    if "scheme" in knob_names(command) and "scheme" not in choices and runs_something:
        raise Misuse(f"choose a scheme with +scheme=<name>: {', '.join(group_options('scheme', flags))}")
    return overrides + flags


def check_key(command: str, word: str, key: str, value: str) -> None:
    """Raise Misuse for a Hydra option that posexp sets itself, and for a plain value in place of a section."""
    if DECIDED.match(key):
        places = [place for place in fields(COMMANDS[command]) if place.name in PLACES]
        known = [f"{place.name}=… ({place.metadata['meaning']})" for place in places]
        where = f"use {' or '.join(known)}" if known else f"posexp {command} writes no files"
        raise Misuse(f"{word} has no effect: posexp chooses its folders by itself; {where}")
    group = key in {name.lstrip("+") for name in hints.groups_of(command)}
    if not group and not value.startswith("{") and (hint := hints.of_section(command, key, value)):
        raise Misuse(hint)


def check_chosen(command: str, overrides: list[str], choices: set[str]) -> None:
    """Raise Misuse for a key of a section that is not chosen, such as data.paths of posexp eval without data=files."""
    for section in fields(COMMANDS[command]):
        keys = [word.partition("=")[0] for word in overrides if word.lstrip("+").startswith(f"{section.name}.")]
        if keys and section.default is None and section.name not in choices:
            raise Misuse(f"{keys[0]}: no {section.name} is chosen ({section.metadata['meaning']})")


def split_flags(command: str, words: list[str]) -> tuple[list[str], list[str]]:
    """Return (flags with their values, overrides), because Hydra 1.3 rejects overrides with flags in between."""
    from hydra._internal.utils import get_args_parser

    options = {name: action for action in get_args_parser()._actions for name in action.option_strings}
    flags, overrides, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in options:
            known = [*options, *(flag for flag, commands in OWN_FLAGS.items() if command in commands)]
            raise Misuse(f"no flag {name}{hints.of_flag(command, name, value_of(value, rest), known)}")
        flags.append(word)
        action = options[name]
        if equals or isinstance(action, (argparse._StoreTrueAction, argparse._VersionAction)):
            continue
        if action.nargs == "?":
            if rest and rest[0] in (action.choices or ()):
                flags.append(rest.pop(0))
        elif rest:
            flags.append(rest.pop(0))
        else:
            raise Misuse(f"{name} needs a value")
    return flags, overrides


def line_to_complete(command: str, words: list[str], last: str) -> tuple[list[str] | None, list[str]]:
    """Return (the words that Hydra completes, the --config-dir flags) of a line that ends in `last`.

    The words are None if the line ends in the value of a flag.
    """
    before = words[:-1] if last else words
    try:
        flags, overrides = split_flags(command, translate(command, before))
    except Misuse:
        return None, []
    folders = [part for pair in pairwise(flags) if pair[0] in ("--config-dir", "-cd") for part in pair]
    return overrides + ([last] if last else []), folders


def config_loader(flags: list[str]) -> Any:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path

    path = create_config_search_path(str(config_dir()))
    for flag in ("--config-dir", "-cd"):
        if flag in flags:
            path.prepend("command-line", f"file://{flags[flags.index(flag) + 1]}")
    return ConfigLoaderImpl(config_search_path=path)


def group_options(group: str, flags: list[str]) -> list[str]:
    return config_loader(flags).get_group_options(group)


def settle_groups(command: str, overrides: list[str], flags: list[str]) -> tuple[list[str], set[str]]:
    """Return overrides with `+` before exactly the config groups that the defaults list lacks, and the chosen groups.

    So scheme=rope and +scheme=rope are equivalent, with or without an experiment that names a scheme.
    """
    from hydra.types import RunMode

    loader = config_loader(flags)
    chosen = {}
    for index, word in enumerate(overrides):
        key, equals, value = word.partition("=")
        group = key.lstrip("+").partition("@")[0]
        plain_group = re.fullmatch(r"\+?[a-z_]+(@[\w.]+)?", key) and loader.get_group_options(group)
        if equals and plain_group:
            if value.startswith("["):
                names = value.strip("[]").replace(" ", "")
                raise Misuse(f"{word} is a list, but a run has one {group}: to train each, type -m +{group}={names}")
            chosen[index] = (key.lstrip("+"), settled(word, NAME).partition("=")[2])
    if not chosen and "scheme" not in knob_names(command):
        return overrides, set()
    others = [word for index, word in enumerate(overrides) if index not in chosen]

    def choices(words: list[str]) -> dict[str, Any]:
        return loader.compute_defaults_list(command, words, RunMode.MULTIRUN).overrides.known_choices

    known = dict(choices(others))
    added = [choice for choice in chosen.values() if choice[0] not in known]
    for key, value in added:  # a choice may add others, as an experiment adds its scheme
        if value == "null":
            raise Misuse(f"{key}=null chooses nothing: there are {', '.join(loader.get_group_options(key))}")
        brought = choices([*others, f"+{key}={value}"])
        known |= {other: choice for other, choice in brought.items() if other != key}
    words = [
        f"{'' if chosen[index][0] in known else '+'}{chosen[index][0]}={chosen[index][1]}" if index in chosen else word
        for index, word in enumerate(overrides)
    ]
    picked = {key for key, value in known.items() if value is not None}
    return words, picked | {key for key, _ in chosen.values()}


def knob_names(command: str) -> set[str]:
    return {knob.name for knob in fields(COMMANDS[command])}
