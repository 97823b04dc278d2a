"""docs/reference/: options and commands from their dataclasses, and the columns of a row from their comments."""

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from posexp.cli.arguments import OWN_FLAGS, SWITCHES
from posexp.cli.usage import USAGE, type_name
from posexp.config.commands import COMMANDS, GROUPS
from posexp.config.fields import MOST
from posexp.config.hints import Knob, groups_of, knobs_of
from posexp.config.values import default_of, plain_value
from posexp.evaluation import rows
from scripts.docs.common import DOCS, MARK, code, paragraph, plain, table

TYPES = {"Text": "text", "Count": "int", "Loss": "float", "Perplexity": "float", "Share": "float, 0 to 1"}


def allowed(knob: Knob) -> str:
    """Return the range of an option: "at least 1", "above 0", "0 to 1", or "" for any value of its type."""
    data = knob.field.metadata
    least, above, most = data["least"], data["above"], data["most"]
    low = f"above {above:g}" if above is not None else f"at least {least:g}" if least is not None else ""
    if most == MOST:
        return low
    return f"{least:g} to {most:,}" if least is not None else f"{low}, at most {most:,}".removeprefix(", ")


def row_of(knob: Knob) -> list[str]:
    value = json.dumps(plain_value(default_of(knob.field))).replace('"', "")
    default = {"???": "required", "": "empty"}.get(value) or code(value)
    kind = "text or list" if knob.type is Any and "." in knob.key else type_name(knob.type)
    kind = ", ".join(part for part in (kind, allowed(knob)) if part)
    return [code(knob.key), plain(kind), default, plain(knob.field.metadata["meaning"])]


def options_table(knobs: list[Knob]) -> str:
    return table(["option", "type", "default", "meaning"], map(row_of, knobs))


def sections_of(command: str) -> list[str]:
    return list(dict.fromkeys(knob.key.partition(".")[0] for knob in knobs_of(COMMANDS[command]) if "." in knob.key))


def own(command: str) -> list[Knob]:
    """Return the options of a command outside of sections."""
    return [knob for knob in knobs_of(COMMANDS[command]) if "." not in knob.key]


def options() -> str:
    every = knobs_of(COMMANDS["train"])
    parts = ["# Options\n", MARK]
    parts.append(
        paragraph(
            """Every option is typed as `key=value`. The sections come first, then the options of each command outside
            of sections. `posexp <command> --help` prints the same, and `posexp <command> --cfg job` the composed
            configuration. `null` means that an option has no value. Options of schemes are on
            [their pages](../schemes/index.md)."""
        )
    )
    for section in sections_of("train"):
        used = [name for name in COMMANDS if section in sections_of(name)]
        meaning = next(each for each in fields(COMMANDS["train"]) if each.name == section).metadata["meaning"]
        parts += [f"## {section}\n", paragraph(f"{meaning[0].upper()}{meaning[1:]}. Commands: {', '.join(used)}.")]
        parts.append(options_table([knob for knob in every if knob.key.startswith(f"{section}.")]))
    parts.append(
        paragraph(
            """`posexp eval` takes the options `eval.*` that are not set from each run's own configuration. `posexp
            bench` has another default model, `model=bench`."""
        )
    )
    for command in COMMANDS:
        parts += [f"## posexp {command}\n", options_table(own(command))]
    return "\n".join(parts)


def commands() -> str:
    usage = re.findall(r"^  posexp (\w+) ?(.*?)(?:  +|\n +)(\S.*)$", USAGE, re.M)
    does: dict[str, str] = {}
    for name, _, text in usage:
        does.setdefault(name, text)
    parts = ["# Commands\n", MARK]
    parts.append(
        paragraph(
            """Every command takes options as `key=value`, named choices as `group=name`, and the flags of Hydra: `-m`
            runs every combination of values separated by commas, `--cfg job` prints the configuration, `--config-dir`
            adds a folder of your own choices. `-v` logs more. Exit codes are 0 for success, 1 if a run failed, 2 for an
            invalid command, and 128 plus the signal when stopped."""
        )
    )
    rows_ = [
        [code(flag), ", ".join(by_command), code(f"{option}={'true' if flag in SWITCHES else '…'}")]
        for flag, by_command in OWN_FLAGS.items()
        for option in [next(iter(by_command.values()))]
    ]
    parts += ["Some options also have a flag:\n", table(["flag", "commands", "option"], rows_)]
    for name, kind in COMMANDS.items():
        text = does[name]
        parts += [f"## {name}\n", paragraph(f"{text[0].upper()}{text[1:]}."), f"    {kind.__doc__}\n"]
        chosen = groups_of(name)
        if chosen:
            rows_ = [[code(group), default_choice(name, group), ", ".join(names)] for group, names in chosen.items()]
            parts.append(table(["named choice", "default", "choices"], rows_))
        sections = [f"[{section}](options.md#{section})" for section in sections_of(name)]
        more = f", and those of {', '.join(sections)}" if sections else ""
        parts.append(paragraph(f"Options: [{name}](options.md#posexp-{name}){more}."))
    return "\n".join(parts)


def default_choice(command: str, group: str) -> str:
    value = GROUPS[command][group]
    return {None: "–", "???": "required"}.get(value) or code(str(value))


def columns() -> list[tuple[str, str, bool, str]]:
    """Return name, type, whether every row has it, and meaning of every column, from the comments of Row."""
    source = inspect.getsource(rows.Row)
    found = re.findall(r"^    (\w+): (\w+)(?: \| None)?( = None)?(?:  # (.*))?$", source, re.M)
    meant = [
        (name, TYPES.get(kind, "any" if kind == "Copied" else kind), not default, text)
        for name, kind, default, text in found
    ]
    assert [name for name, *_ in meant] == list(rows.NAMES)
    return meant


def rows_page() -> str:
    parts = ["# Columns of a row\n", MARK]
    parts.append(
        paragraph(
            """A row is one measurement: a run under one protocol at one length, with one window, transform and control.
            `rows.jsonl` of a run has one JSON object a row, and `rows.csv` of a report the same columns. A column that
            is not in every row is empty or missing where it does not apply, and in rows of older versions."""
        )
    )
    lines = [
        [code(name), {"str": "text"}.get(kind, kind), "yes" if needed else "", plain(text)]
        for name, kind, needed, text in columns()
    ]
    parts.append(table(["column", "type", "in every row", "meaning"], lines))
    parts.append(
        paragraph(
            f"""Two rows of a run are of the same measurement if they agree in
            {", ".join(f"`{name}`" for name in rows.KEY)}; `posexp eval` replaces the older one."""
        )
    )
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    folder = DOCS / "reference"
    return {folder / "options.md": options(), folder / "commands.md": commands(), folder / "rows.md": rows_page()}
