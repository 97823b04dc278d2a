"""TAB completion: the words that may end a command line. It imports neither Hydra nor torch."""

import re
from pathlib import Path

from posexp.cli.arguments import BARE, HYDRA_FLAGS, OWN_FLAGS, SWITCHES, Line, split_flags
from posexp.config.commands import COMMANDS, GROUPS
from posexp.config.hints import knobs_of, names_of, part_options
from posexp.config.sections import config_dir
from posexp.errors import Misuse

RUN = re.compile(r"(.+)-s\d+-[0-9a-f]{8}$")  # the name of a run folder, with its label


def candidates(line: str) -> list[str]:
    """Return the words that the last word of `line` may become. A value of a file name is left to the shell."""
    words = line.split()[1:]
    last = "" if line.endswith(" ") or not words else words.pop()
    if not words:
        return [command for command in COMMANDS if command.startswith(last)]
    command = words[0] if words[0] in COMMANDS else "train"
    option = OWN_FLAGS.get(words[-1], {}).get(command) if words[-1] not in SWITCHES else None
    try:
        typed = Line(*split_flags(command, words[1:-1] if option else words[1:]))
    except Misuse:
        return []
    if option:
        found = values_of(command, option, typed)
    elif last.startswith("-"):
        found = sorted({*HYDRA_FLAGS, *(flag for flag, options in OWN_FLAGS.items() if command in options)})
    elif "=" in last:
        key, _, value = last.partition("=")
        listed = value[: max(value.rfind(sign) for sign in "[,") + 1]  # earlier items of a list or a sweep
        found = [f"{key}={listed}{each}" for each in values_of(command, key.lstrip("+"), typed)]
    else:
        found = [*values_of(command, BARE.get(command, ""), typed), *keys_of(command, last, typed)]
    return [each for each in found if each.startswith(last)]


def keys_of(command: str, last: str, typed: Line) -> list[str]:
    """Return config groups and options, as `key=`. Without a dot in `last`, a section is shown as `section.`."""
    keys = [knob.key for knob in knobs_of(COMMANDS[command])]
    groups = [group.lstrip("+") for group in GROUPS[command]]
    for word in typed.overrides:
        name, _, choice = word.lstrip("+").partition("=")
        if name in groups:
            paths = [folder / name / f"{choice}.yaml" for folder in (config_dir(), *typed.folders)]
            keys += [key for path in paths if path.is_file() for key in part_options(path)]
    shown = [key if "." in last else key.partition(".")[0] + "." * ("." in key) for key in keys if key not in groups]
    choices = [f"+{group}" for group in groups] if last.startswith("+") else list(GROUPS[command])
    return [*(f"{group}=" for group in choices), *dict.fromkeys(f"{key}=".replace(".=", ".") for key in shown)]


def values_of(command: str, key: str, typed: Line) -> list[str]:
    """Return the known values of an option or a config group, such as names of runs, groups, curves and protocols."""
    group = key.partition("@")[0]
    if group in {name.lstrip("+") for name in GROUPS[command]}:
        return names_of(group, typed.folders)
    given = dict(word.replace("'", "").split("=", 1) for word in typed.overrides if "=" in word)
    every = [path.parent for path in Path(given.get("results", "results")).expanduser().glob("*/*/config.yaml")]
    runs = sorted(run.name for run in every if run.parent.name == given.get("group", "default"))
    match key:
        case "hydra/launcher":
            return ["basic", *names_of(key)]
        case "schemes":
            return names_of("scheme", typed.folders)
        case "names":
            kinds = ("scheme", "window", "temperature", "mixer", "transform", "model")
            return [name for kind in kinds for name in names_of(kind)]
        case "group":
            return sorted({run.parent.name for run in every})
        case "runs":
            return runs
        case "curves":
            return sorted({label[1] for name in runs if (label := RUN.match(name))})
        case "protocol" | "eval.protocols":  # the import of posexp/evaluation/plan.py takes seconds
            plan = Path(__file__).resolve().parents[1] / "evaluation" / "plan.py"
            return re.findall(r"^ +Protocol\(\s*(?:\w+\.)?(\w+)", plan.read_text(), re.M)
    found = next((knob for knob in knobs_of(COMMANDS[command]) if knob.key == key), None)
    return [] if found is None else ["true", "false"] if found.type is bool else found.words
