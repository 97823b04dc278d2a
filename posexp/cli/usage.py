"""The help texts: all commands with an example each, and the form and options of each command."""

import json
from enum import Enum
from pathlib import Path
from shutil import get_terminal_size
from textwrap import TextWrapper
from types import NoneType
from typing import Any, get_args, get_origin

from posexp.config.commands import COMMANDS
from posexp.config.hints import Knob, groups_of, knobs_of
from posexp.config.values import default_of, plain_value

USAGE = """posexp: how decoder language models trained on short sequences behave on longer ones

  posexp train +scheme=rope                 train on short sequences, then evaluate at longer lengths
  posexp train -m +scheme=rope,alibi seed=0,1,2
                                            train every combination
  posexp eval --lengths 512,2048,8192       evaluate every finished run of the group
  posexp report --html                      tables, curves and verdicts of the group, and page.html
  posexp compare alibi rope                 paired comparison, with interval and p value
  posexp power alibi rope                   number of seeds to detect a difference
  posexp leaderboard                        ranks of the published studies; --check: of a submission
  posexp runs                               all runs and their status
  posexp schemes                            all positional schemes, windows, temperatures, …
  posexp doctor                             what this machine has, what posexp will use, what is missing
  posexp check rope                         measure the promised properties of a scheme
  posexp bench rope alibi                   speed and memory of schemes
  posexp inspect 'rope-*'                   pictures of the scheme of a trained run
  posexp export 'rope-*'                    export a trained run for transformers

posexp <command> --help lists the options of a command; -v logs more. TAB completion: eval "$(posexp -sc install=bash)"
"""


def help_of(command: str, own: list[Path]) -> str:
    """Return the form, named choices and options of a command, wrapped; `own` are the folders of --config-dir."""
    width = get_terminal_size().columns
    groups = groups_of(command, own)
    parts = [("Named choices (group=name)", {group: ", ".join(names) for group, names in groups.items()})]
    parts += [("Options (key=value)", {knob.key: described(knob) for knob in knobs_of(COMMANDS[command])})]
    tables = [f"{title}:\n\n{choices_text(rows, width)}" for title, rows in parts if rows]
    more = f"posexp {command} --cfg job prints the composed config, and --hydra-help Hydra's own flags."
    return "\n\n".join([str(COMMANDS[command].__doc__), *tables, more])


def choices_text(rows: dict[str, str], width: int) -> str:
    """Return one line per row, with wrapped text beside the name."""
    left = max(map(len, rows)) + 4
    wrapped = TextWrapper(max(width, left + 30), break_long_words=False, break_on_hyphens=False)
    wrapped.subsequent_indent = " " * left
    return "\n".join(wrapped.fill(f"{f'  {name}':<{left}}{text}") for name, text in rows.items())


def described(knob: Knob) -> str:
    """Return the meaning, type and default of an option: peak learning rate (float, default 0.003)."""
    default = json.dumps(plain_value(default_of(knob.field))).replace('"', "") or "empty"
    kind = "text or list" if knob.type is Any and "." in knob.key else type_name(knob.type)
    return f"{knob.field.metadata['meaning']} ({kind}{'' if default == '???' else f', default {default}'})"


def type_name(kind: Any) -> str:
    """Return a type as help texts write it: "int", "list of int", "ppl | nll", "int or null", or "choice"."""
    if parts := [part for part in get_args(kind) if get_origin(kind) is not dict]:
        inner = [type_name(part) for part in parts if part is not NoneType]
        several = f"list of {inner[0]}" if get_origin(kind) is list else " or ".join(inner)
        return f"{several} or null" if NoneType in parts else several
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(each.name for each in kind)
    return "choice" if kind is Any or get_origin(kind) is dict else kind.__name__
