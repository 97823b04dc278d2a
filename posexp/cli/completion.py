"""TAB completion: the words that may end a command line. It imports neither Hydra nor torch."""

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from posexp.cli.arguments import BARE, HYDRA_FLAGS, HYDRA_VALUES, OWN_FLAGS, SWITCHES
from posexp.config.commands import COMMANDS, GROUPS
from posexp.config.hints import Knob, knobs_of, names_of, part_options
from posexp.config.sections import config_dir

RUN = re.compile(r"(.+)-s\d+-[0-9a-f]{8}$")  # the name of a run folder, with its label


def candidates(line: str) -> list[str]:
    """Return the words that the last word of `line` may become. A value of a file name is left to the shell."""
    words = line.split()[1:]
    last = "" if line.endswith(" ") or not words else words.pop()
    command = words[0] if words and words[0] in COMMANDS else "train"
    before = words[-1] if words else ""
    if not words:
        found: Iterable[str] = COMMANDS
    elif before in HYDRA_VALUES:
        return []
    elif command in OWN_FLAGS.get(before, {}) and before not in SWITCHES:
        found = values_of(command, OWN_FLAGS[before][command], words)
    elif last.startswith("-"):
        own = (flag for flag, keys in OWN_FLAGS.items() if command in keys)
        found = sorted(flag for flag in (*own, *HYDRA_FLAGS) if flag.startswith("--"))
    elif "=" in last:
        key, _, value = last.partition("=")
        listed = value[: max(value.rfind(sign) for sign in "[,") + 1]  # earlier items of a list or a sweep
        found = (f"{key}={listed}{each}" for each in values_of(command, key.lstrip("+"), words))
    else:
        bare = values_of(command, BARE[command], words) if command in BARE else []
        found = [*bare, *keys_of(command, last, words)]
    return [each for each in found if each.startswith(last)]


def keys_of(command: str, last: str, words: list[str]) -> Iterator[str]:
    """Yield config groups and options, as `key=`. Without a dot in `last`, a section is shown as `section.`."""
    keys = [knob.key for knob in knobs_of(COMMANDS[command])]
    for group in GROUPS[command]:
        name = group.lstrip("+")
        chosen = [word.partition("=")[2] for word in words if word.lstrip("+").startswith(f"{name}=")]
        paths = [folder / name / f"{each}.yaml" for each in chosen for folder in (config_dir(), *own_folders(words))]
        keys += [key for path in paths if path.is_file() for key in part_options(name, path)]
        yield f"+{name}=" if last.startswith("+") else f"{group}="
    for key in dict.fromkeys(keys):
        section, dot, _ = key.partition(".")
        if key not in GROUPS[command] and f"+{key}" not in GROUPS[command]:
            yield f"{key}=" if not dot or "." in last else f"{section}."


def values_of(command: str, key: str, words: list[str]) -> list[str]:
    """Return the known values of an option or a config group: names, runs, groups, curves, protocols or words."""
    group = key.partition("@")[0]
    if key in ("hydra/launcher", "hydra/sweeper"):
        return ["basic", *names_of(key)]
    if any(group == name.lstrip("+") for name in GROUPS[command]):
        return names_of(group, own_folders(words))
    if key == "schemes":
        return names_of("scheme", own_folders(words))
    if key == "names":
        return [name for kind in ("scheme", "window", "transform", "model") for name in names_of(kind)]
    results = Path(value_in(words, "results") or "results").expanduser()
    runs = sorted(path.parent for path in results.glob("*/*/config.yaml") if RUN.match(path.parent.name))
    if key == "group":
        return sorted({run.parent.name for run in runs})
    names = [run.name for run in runs if run.parent.name == (value_in(words, "group") or "default")]
    if key == "runs":
        return names
    if key == "curves":
        return sorted({label[1] for name in names if (label := RUN.match(name))})
    if key in ("protocol", "eval.protocols"):
        return protocols()
    return next((words_of(knob) for knob in knobs_of(COMMANDS[command]) if knob.key == key), [])


def words_of(knob: Knob) -> list[str]:
    return ["true", "false"] if knob.type is bool else knob.words


def value_in(words: list[str], key: str) -> str | None:
    """Return the value of `key=value` or of `--key value` in a command line."""
    for word, after in zip_longest(words, words[1:]):
        if word.startswith((f"{key}=", f"--{key}=")):
            return word.partition("=")[2]
        if word == f"--{key}":
            return after
    return None


def own_folders(words: list[str]) -> list[Path]:
    """Return the folder of --config-dir."""
    own = value_in(words, "config-dir") or (words[words.index("-cd") + 1] if "-cd" in words[:-1] else None)
    return [Path(own).expanduser()] if own else []


def protocols() -> list[str]:
    """Return the names in PROTOCOLS of posexp/evaluation/plan.py, whose import takes seconds."""
    source = (Path(__file__).resolve().parents[1] / "evaluation" / "plan.py").read_text()
    table = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROTOCOLS"
    )
    calls = (node for node in ast.walk(table) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Protocol")
    return [ast.unparse(call.args[0]).rpartition(".")[2] for call in calls]
