"""What the command line says of itself: all commands with an example each, and the form and the knobs of each."""

from dataclasses import MISSING
from enum import Enum
from shutil import get_terminal_size
from textwrap import wrap
from types import NoneType
from typing import Any, get_args, get_origin

from posexp.config.commands import COMMANDS
from posexp.config.hints import Knob, groups_of, knobs_of, searched

USAGE = """posexp: how decoder language models trained on short sequences behave on longer ones

  posexp train +scheme=rope                 train on short sequences, then evaluate at longer lengths
  posexp train -m +scheme=rope,alibi seed=0,1,2
                                            the same for every combination
  posexp eval --lengths 512,2048,8192       measure every finished run of the group
  posexp report --html                      tables, curves and verdicts of the group, and one page of all
  posexp compare alibi rope                 which is better, with interval and p
  posexp power alibi rope                   how many seeds it takes to tell
  posexp runs                               what was trained, and how far it is
  posexp schemes                            the positional schemes, windows and transforms there are
  posexp check rope                         what a scheme promises, measured
  posexp bench rope alibi                   how fast schemes are, in how much memory
  posexp inspect 'rope-*'                   pictures of what a trained run's scheme does
  posexp export 'rope-*'                    a trained run as a folder that transformers loads

posexp <command> --help lists a command's knobs; -v logs more. TAB completion: eval "$(posexp -sc install=bash)"
"""

EXAMPLES = {
    "train": "posexp train +scheme=<name> [key=value …] [-m [--detach] [hydra/launcher=<name>]]",
    "eval": "posexp eval --lengths 512,2048,8192 [--runs 'glob'] [+transform=a,b] [window=<name>] [key=value …]",
    "report": "posexp report [--html] [--runs 'glob'] [key=value …]",
    "compare": "posexp compare <base> <curve, or a quoted glob> … [key=value …]",
    "power": "posexp power <base> <curve> [difference=0.01] [power=0.8] [key=value …]",
    "runs": "posexp runs [--group 'glob']",
    "schemes": "posexp schemes [name …]",
    "check": "posexp check [scheme …] [key=value …]",
    "bench": "posexp bench [scheme …] [--peers] [key=value …]",
    "inspect": "posexp inspect [run, or a glob …] [key=value …]",
    "export": "posexp export [run, or a glob …] [folder=…] [key=value …]",
}


def help_of(command: str) -> str:
    """The named choices and the knobs that act in a command, as wide as the terminal."""
    width = get_terminal_size().columns
    groups = groups_of(command, searched())
    parts = [("Named choices (group=name)", {group: ", ".join(names) for group, names in groups.items()})]
    parts += [("Knobs (key=value)", {knob.key: described(knob) for knob in knobs_of(COMMANDS[command])})]
    return "\n\n".join(f"{title}:\n\n{listed(rows, width)}" for title, rows in parts if rows)


def listed(rows: dict[str, str], width: int) -> str:
    """A line for each, its text beside its name; what is too long goes on below."""
    left = max(map(len, rows)) + 4
    lines = []
    for name, text in rows.items():
        pieces = wrap(text, max(width - left, 30), break_long_words=False, break_on_hyphens=False)
        lines += [f"{f'  {name}' if not i else '':<{left}}{piece}" for i, piece in enumerate(pieces)]
    return "\n".join(lines)


def described(knob: Knob) -> str:
    """Its meaning, type and default: peak learning rate (float, default 0.003)."""
    default = knob.field.default_factory() if knob.field.default is MISSING else knob.field.default
    shown = [] if default == "???" else [f"default {written(default)}"]
    kind = "text or list" if knob.type is Any and "." in knob.key else type_name(knob.type)
    return f"{knob.field.metadata['meaning']} ({', '.join([kind, *shown])})"


def type_name(kind: Any) -> str:
    """As it is written in help: "int", "list of int", "ppl | nll", "int or null"; "choice" for a named one."""
    if parts := [part for part in get_args(kind) if get_origin(kind) is not dict]:
        inner = [type_name(part) for part in parts if part is not NoneType]
        several = f"list of {inner[0]}" if get_origin(kind) is list else " or ".join(inner)
        return f"{several} or null" if NoneType in parts else several
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(each.name for each in kind)
    return "choice" if kind is Any or get_origin(kind) is dict else kind.__name__


def written(default: Any) -> str:
    """As it is typed."""
    if isinstance(default, Enum):
        return default.name
    if isinstance(default, bool) or default is None:
        return {None: "null", True: "true", False: "false"}[default]
    return str(default).replace("'", "") if default != "" else "empty"
