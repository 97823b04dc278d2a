"""The Markdown that users read, and the command lines in it."""

import re
import shlex
from collections.abc import Iterator

from posexp.cli.arguments import read_line
from posexp.config.commands import COMMANDS
from posexp.config.compose import compose

BLOCK = re.compile(r"^```.*?\n([\s\S]*?)^```$|(?:(?<=\n\n)|\A)((?: {4}.*\n+)+)", re.M)
SETTINGS = re.compile(r"^(?:\w+=\S+ )*(?=posexp )")  # environment variables before a command
SWEPT = re.compile(r"([^=]+)=([^\[({]+,[^\[({]*)")  # key=a,b
LAUNCHING = ("hydra.launcher.", "hydra/launcher=", "--detach")  # needs what this machine may lack


def command_lines(text: str) -> Iterator[str]:
    """Yield every command of posexp in the code blocks of a page, with continued lines joined.

    Forms with "…" or optional [parts] are not commands.
    """
    for block in BLOCK.finditer(text):
        for line in (block[1] or block[2] or "").replace("\\\n", " ").splitlines():
            line = re.split(r"\s#", SETTINGS.sub("", line.strip()).removeprefix("$ "))[0]
            command = re.split(r"\s&&|\s\||;", line)[0]
            if command.startswith("posexp ") and "…" not in line and " [" not in line:
                yield " ".join(command.split())


def check_command(line: str) -> None:
    """Compose a command line as posexp would. Raises Misuse or an AssertionError if it is not valid."""
    command, *words = shlex.split(line)[1:]
    if command.startswith("-"):  # posexp --version
        return
    tail = [word for word in words if not word.startswith(LAUNCHING) and word != "-m"]
    found = read_line(command, tail)
    if not {"--config-dir", "--help"} & set(tail):  # a folder of choices that only the reader has
        swept = [SWEPT.fullmatch(word) for word in found.overrides]
        choices = [
            [f"{one[1]}={value}" for value in one[2].split(",")] if one else [word]
            for one, word in zip(swept, found.overrides, strict=True)
        ]
        for index in range(max(map(len, choices), default=1)):  # every value, not every combination
            cell = [values[index % len(values)] for values in choices]
            # A parent (from=<run>) is a run that only the reader has: the options beside it are composed without it.
            config = compose(command, cell, inherit=lambda values, typed: COMMANDS["train"](scheme=values["scheme"]))
            assert isinstance(config, COMMANDS[command])
