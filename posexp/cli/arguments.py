"""The translation of posexp's command line to flags and overrides of Hydra."""

import re
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path, PurePath
from shutil import which

from posexp.config import hints
from posexp.config.commands import COMMANDS, GROUPS
from posexp.config.explain import NO_SLURM
from posexp.config.overrides import count, quoted, settle
from posexp.errors import Misuse

OWN_FLAGS: dict[str, dict[str, str]] = {  # the option that a flag sets, by command
    "--lengths": {"train": "eval.lengths", "eval": "eval.lengths", "check": "lengths", "bench": "lengths"},
    "--runs": dict.fromkeys(("eval", "report", "inspect", "export"), "runs"),
    "--group": {"runs": "group"},
    "--verify": {"runs": "verify"},
    "--detach": {"train": "hydra.sweeper.detach"},
    "--html": {"report": "html"},
    "--all": {"report": "all"},
    "--peers": {"bench": "peers"},
    "--against": {"bench": "against"},
    "--check": {"leaderboard": "check"},
}
SWITCHES = {"--verify", "--html", "--all", "--peers", "--detach"}
# Hydra's own flags. It rejects overrides between them, so they are separated here.
HYDRA_SWITCHES = {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"}
HYDRA_VALUES = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"}
HYDRA_VALUES |= {"--experimental-rerun"}
INFO = {"--info": {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}}  # with or without a value
INFO["-i"] = INFO["--info"]
HYDRA_FLAGS = {*HYDRA_SWITCHES, *HYDRA_VALUES, *INFO}
SHOWING = {"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help"}  # these run nothing

OVERRIDE = re.compile(r"[+~]*[\w./@-]+=|~")
DECIDED = re.compile(r"hydra[./](run|sweep|output_subdir|job_logging)([.]|$)|hydra[.]job[.]chdir$")
PLACES = ("results", "group", "folder")  # options that set where files are written
# The option of bare words, as in `posexp check rope xpos`. A bare word of the last two commands is a run.
BARE = {"check": "schemes", "bench": "schemes", "schemes": "components", "compare": "curves", "power": "curves"}
BARE |= {"inspect": "runs", "export": "runs"}


@dataclass(frozen=True)
class Line:
    """A command line: Hydra's flags with their values, and overrides."""

    flags: list[str]
    overrides: list[str]

    @property
    def sweeps(self) -> bool:
        return bool({"-m", "--multirun"} & set(self.flags))

    @property
    def shows(self) -> bool:
        return bool(SHOWING & {flag.partition("=")[0] for flag in self.flags})

    @property
    def config_dir(self) -> str | None:
        """The value of --config-dir."""
        return dict(pairwise(self.flags)).get("--config-dir")

    @property
    def folders(self) -> list[Path]:
        """The user's own folder of configs, if there is one."""
        return [Path(self.config_dir).expanduser()] if self.config_dir else []


def read_line(command: str, words: list[str]) -> Line:
    """Return the flags and overrides of a command line, with every override as Hydra composes it."""
    flags, typed = split_flags(command, words)
    line = Line(flags, [])
    if line.sweeps and line.shows:
        raise Misuse("-m runs a sweep and cannot be combined with --help, --cfg or --info")
    for word in typed:
        check_key(command, word, line.sweeps)
    overrides = settle(command, typed)
    chosen = {word.lstrip("+~").partition("=")[0] for word in overrides}
    for section in fields(COMMANDS[command]) if "experiment" not in chosen else ():
        keys = [word.partition("=")[0] for word in overrides if word.lstrip("+").startswith(f"{section.name}.")]
        if keys and section.default is None and section.name not in chosen:
            raise Misuse(f"{keys[0]}: no {section.name} is chosen ({section.metadata['meaning']})")
    return Line(flags, overrides)


def split_flags(command: str, words: list[str]) -> tuple[list[str], list[str]]:
    """Return (Hydra's flags with their values, overrides), with posexp's flags and bare words as overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    bare: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            (bare if command in BARE and not OVERRIDE.match(word) else overrides).append(word)
            continue
        option = OWN_FLAGS.get(flag, {}).get(command)
        if option is None and flag not in HYDRA_FLAGS:
            known = [*sorted(HYDRA_FLAGS), *(own for own, keys in OWN_FLAGS.items() if command in keys)]
            near = value or next((word for word in rest[:1] if not word.startswith("-") and "=" not in word), None)
            raise Misuse(f"posexp {command} has no flag {flag}{hints.of_flag(command, flag, near, known)}")
        if not equals and ((option and flag not in SWITCHES) or flag in HYDRA_VALUES):
            if not rest:
                raise Misuse(f"{flag} needs a value")
            value = rest.pop(0)
        if option is None:
            flags += ["--config-dir" if flag == "-cd" else flag, *([value] if flag in HYDRA_VALUES else [])]
            if rest and rest[0] in INFO.get(flag, ()):
                flags.append(rest.pop(0))
        elif flag in SWITCHES:
            overrides.append(f"{option}={value or 'true'}")
        else:
            overrides.append(f"{option}={numbers(value) if flag == '--lengths' else quoted(value)}")
    if bare and BARE[command] != "runs":
        overrides.append(f"{BARE[command]}=[{','.join(map(quoted, bare))}]")
    elif len(bare) > 1:
        raise Misuse(f"name one run, or several by a quoted glob, got {len(bare)}: {' '.join(bare)}")
    elif bare:
        path = PurePath(bare[0])
        overrides.append(f"runs={quoted(path.name)}")
        if len(path.parts) > 1:
            overrides += [f"group={quoted(path.parent.name)}", f"results={quoted(str(path.parent.parent))}"]
    return flags, overrides


def numbers(text: str) -> str:
    """Return a list such as `512,2048` in Hydra's syntax. Raises Misuse unless all are whole numbers."""
    try:
        lengths = [count(part.strip()) or int(part) for part in text.split(",")]
    except ValueError:
        raise Misuse(f"--lengths takes whole numbers, as in --lengths 512,2048,8192, got {text!r}") from None
    return str(lengths).replace(" ", "")


def check_key(command: str, word: str, sweeps: bool) -> None:
    """Raise Misuse for an option of sweeps without -m or of Hydra that posexp sets, and for a section as a value."""
    key, _, value = word.lstrip("+").partition("=")
    if key in ("hydra/launcher", "hydra/sweeper", "hydra.sweeper.detach") and not sweeps:
        raise Misuse(f"{'--detach' if key.endswith('detach') else word} only acts in a sweep: add -m")
    if (key, value) == ("hydra/launcher", "submitit_slurm") and which("sbatch") is None:
        raise Misuse(NO_SLURM)
    if DECIDED.match(key):
        places = [place for place in fields(COMMANDS[command]) if place.name in PLACES]
        known = [f"{place.name}=… ({place.metadata['meaning']})" for place in places]
        where = f"use {' or '.join(known)}" if known else f"posexp {command} writes no files"
        raise Misuse(f"{word} has no effect: posexp chooses its folders by itself; {where}")
    group = key in {name.lstrip("+") for name in GROUPS[command]}
    if not group and not value.startswith("{") and (hint := hints.of_section(command, key, value)):
        raise Misuse(hint)
