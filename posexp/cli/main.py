"""The command line `posexp <command> …`, a layer over Hydra. No other module reads sys.argv.

--help and TAB completion import neither Hydra nor torch, and a command imports what it runs.
"""

import logging
import os
import select
import signal
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

from posexp import __version__
from posexp.cli.arguments import read_line
from posexp.cli.completion import candidates
from posexp.cli.usage import USAGE, help_of
from posexp.config.commands import COMMANDS
from posexp.config.explain import explain_error
from posexp.config.sections import config_dir
from posexp.errors import Misuse, PosexpError
from posexp.jobs.ranks import place
from posexp.jobs.signals import heed, stop, stopped
from posexp.output import closing, console
from posexp.output.console import say

VERBOSE = {"-v", "--verbose"}


def main() -> int:
    """Run the command of sys.argv. Return 0 for success, 1 for a failed run, 2 for misuse, 128 + signal if stopped."""
    words = sys.argv[1:]
    logging.disable(logging.NOTSET)
    console.logger.setLevel(logging.DEBUG if VERBOSE & set(words) else logging.INFO)
    words = [word for word in words if word not in VERBOSE]
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    stopped.clear()
    closing.collected.clear()
    heed(stop)
    try:
        if words[:1] == ["-sc"] or words[:1] == ["--shell_completion"]:  # Hydra installs its hooks of the shells
            if not any(word.startswith("query=") for word in words):
                hydra_main("train", words)
            else:
                found = candidates(os.environ.get("COMP_LINE", ""))
                print(*found, sep="\n" if "query=fish" in words else " ")
            return 0
        if words == ["--version"]:
            from posexp.runs.provenance import revision

            commit, dirty = revision()
            changed = " with changes" if dirty else ""
            print(f"posexp {__version__}" + (f" (commit {commit}{changed})" if commit else ""))
            return 0
        if not words or words[0] in ("-h", "--help", "help"):
            print(USAGE, end="", flush=True)
            return 0 if words else 2
        if words[0] not in COMMANDS:
            close = get_close_matches(words[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(COMMANDS)}"
            raise Misuse(f"no command {words[0]!r}; {hint}")
        if words[0] == "train":
            console.logger.disabled = place().rank > 0
        run_hydra(words[0], words[1:])
        closing.say_all()
        sys.stdout.flush()  # raises BrokenPipeError here, not while the interpreter exits
        return 0
    except KeyboardInterrupt as end:
        say(f"posexp: {end}" if str(end) else "posexp: interrupted; repeat the command to go on")
        logging.disable()  # Hydra may have begun to set it up, and PyTorch logs when Python ends
        return 128 + getattr(end, "signum", signal.SIGINT)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich was the first to notice the closed pipe
            return end_silently()
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:
        if stopped:
            say(f"posexp: {stopped[0]}")
            return 128 + stopped[0].signum
        if isinstance(error, BrokenPipeError) and (reader_left(sys.stdout) or reader_left(sys.stderr)):
            return end_silently()
        if wants_traceback:
            raise
        say(f"posexp: error: {explain_error(error, words[0])}")
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        if isinstance(error, PosexpError):
            return error.exit_code
        return 2 if isinstance(error, (HydraException, OmegaConfBaseException)) else 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # of posexp.jobs.signals.insist


def reader_left(stream: TextIO) -> bool:
    """Return whether `stream` is a pipe whose reader (head, less) has exited."""
    asked = select.poll()
    asked.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))


def end_silently() -> int:
    """Discard pending output and return the exit code of a program that SIGPIPE ended."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 128 + signal.SIGPIPE


def run_hydra(command: str, tail: list[str]) -> None:
    """Run a command once, or show or sweep what Hydra's flags say. Raises Misuse for a wrong command line."""
    line = read_line(command, tail)
    add_plugins()
    if {"--help", "-h"} & set(line.flags):
        print(help_of(command, line.folders))
    elif line.flags in ([], ["--config-dir", line.config_dir]):
        from posexp.cli.endings import end_command
        from posexp.cli.tasks import perform
        from posexp.config.compose import compose
        from posexp.runs.parent import inherit

        config = compose(command, line.overrides, line.config_dir, inherit)
        result = perform(config)
        if result is not None and place().rank == 0:
            end_command(config, result, tail)
    elif line.sweeps:
        from posexp.cli.endings import end_training
        from posexp.sweeps.cells import swept

        swept.clear()
        try:
            hydra_main(command, line.flags + line.overrides)
        finally:
            if swept and not stopped:
                end_training(list(swept), tail)
    else:
        try:
            hydra_main(command, line.flags + line.overrides)
        except Exception as error:
            if not (line.shows and "You must specify 'scheme'" in str(error)):
                raise
            hydra_main(command, [*line.flags, *line.overrides, "~scheme"])


def add_plugins() -> None:
    """Put posexp's plugins where Hydra looks for them, which it does once in a process."""
    folder = str(Path(__file__).resolve().parents[1] / "sweeps")
    if folder not in sys.path:
        sys.path.append(folder)


def hydra_main(command: str, words: list[str]) -> None:
    """Call Hydra as a program with the arguments `words`."""
    add_plugins()
    import hydra
    from hydra.core.plugins import Plugins
    from hydra_plugins.posexp_searchpath import OwnConfigsFirst
    from hydra_plugins.posexp_sweeper import CellSweeper

    from posexp.cli.tasks import run_job
    from posexp.config.compose import register, register_launchers

    register(command)
    register_launchers()
    for plugin in (CellSweeper, OwnConfigsFirst):
        Plugins.instance().register(plugin)  # a program that called posexp's functions has looked for plugins before
    logging.raiseExceptions = False  # --info prints by logging, whose reader (head, less) may exit early
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors, which `main` prints in one line
    sys.argv = [sys.argv[0], *words]
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(run_job)()
