"""The command line `posexp <command> …`, a layer over Hydra. No other module reads sys.argv.

--help, --cfg and TAB completion do not import torch.
"""

import logging
import os
import select
import signal
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from posexp import __version__
from posexp.cli.arguments import group_options, hydra_arguments, line_to_complete, translate
from posexp.cli.tasks import TASKS, Failed
from posexp.cli.usage import EXAMPLES, USAGE, help_of
from posexp.config.commands import COMMANDS
from posexp.config.compose import schema_of
from posexp.config.explain import one_line
from posexp.config.overrides import read_typed
from posexp.config.sections import config_dir
from posexp.errors import Misuse, PosexpError
from posexp.jobs.ranks import place
from posexp.jobs.signals import heed, stop, stopped
from posexp.output import console
from posexp.output.console import say
from posexp.sweeps import sweepers
from posexp.sweeps.launchers import present_launchers, threads

VERBOSE = {"-v", "--verbose"}


def main() -> int:
    """Run the command of sys.argv. Return 0 for success, 1 for a failed run, 2 for misuse, 128 + signal if stopped."""
    words = sys.argv[1:]
    logging.disable(logging.NOTSET)
    console.logger.setLevel(logging.DEBUG if VERBOSE & set(words) else logging.INFO)
    words = [word for word in words if word not in VERBOSE]
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    stopped.clear()
    heed(stop)
    try:
        if words[:1] == ["-sc"] or words[:1] == ["--shell_completion"]:
            return complete(words)
        if words == ["--version"]:
            print(f"posexp {__version__}")
            return 0
        command, tail = command_of(words)
        if command is None:
            print(USAGE, end="", flush=True)
            return 0 if words else 2
        if command == "train":
            console.logger.disabled = place().rank > 0
        run_hydra(command, translate(command, tail))
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
    except (Exception, Failed) as raised:
        error = raised.__cause__ if isinstance(raised, Failed) else raised
        assert isinstance(error, Exception)
        if stopped:
            say(f"posexp: {stopped[0]}")
            return 128 + stopped[0].signum
        if isinstance(error, BrokenPipeError) and (reader_left(sys.stdout) or reader_left(sys.stderr)):
            return end_silently()
        if wants_traceback:
            raise error from None
        say(f"posexp: error: {one_line(error, words[0])}")
        return exit_code(error)
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


def command_of(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the command and the words after it, or None for help. Raises Misuse for an unknown command."""
    if not words or words[0] in ("-h", "--help", "help"):
        return None, []
    if words[0] not in TASKS:
        close = get_close_matches(words[0], TASKS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(TASKS)}"
        raise Misuse(f"no command {words[0]!r}; {hint}")
    return words[0], words[1:]


def run_hydra(command: str, tail: list[str]) -> None:
    """Run Hydra, which composes the config and calls the task of the command, once or for every job of a sweep."""
    import hydra

    register()
    logging.raiseExceptions = False  # --info prints by logging, whose reader (head, less) may exit early
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors, which `main` prints in one line
    sys.argv = [sys.argv[0], *hydra_arguments(command, tail)]
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(TASKS[command])()


def complete(words: list[str]) -> int:
    """Print TAB completions. Hydra completes the words after the command; its shell hooks call `posexp -sc query=…`."""
    typed_line = os.environ.get("COMP_LINE", "")
    if any(word.startswith("query=") for word in words):
        typed_words = typed_line.split()
        if len(typed_words) < 2 or (len(typed_words) == 2 and not typed_line.endswith(" ")):
            print(" ".join(TASKS))
            return 0
        command = typed_words[1] if typed_words[1] in TASKS else "train"
        last = "" if typed_line.endswith(" ") else typed_words[-1]
        if last.startswith("--"):
            print("--lengths --runs --group --html --all --peers --detach --multirun --cfg --info --help --config-dir")
            return 0
        if command in ("check", "bench") and "=" not in last:
            print(" ".join(group_options("scheme", [])))
            return 0
        rest, flags = line_to_complete(command, typed_words[2:], last)
        if rest is None:
            return 0  # the value of a flag: the shell completes file names
        words = [*words, *flags]
        os.environ["COMP_LINE"] = " ".join([typed_words[0], *rest]) + (" " if not last else "")
    else:
        command = "train"
    import hydra

    register()
    sys.argv = [sys.argv[0], *words]
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(TASKS[command])()
    return 0


def register() -> None:
    """Register the schema of every command, the resolvers of configs/ and posexp's plugin with Hydra."""
    plugins = str(Path(__file__).resolve().parents[1] / "sweeps")
    if plugins not in sys.path:
        sys.path.append(plugins)
    store = ConfigStore.instance()
    for command, schema in COMMANDS.items():
        store.store(name=f"{command}_schema", node=schema_of(schema))
    sweepers.present()
    read_typed()
    OmegaConf.register_new_resolver("posexp_usage", lambda command: EXAMPLES[command], replace=True)
    OmegaConf.register_new_resolver("posexp_help", help_of, replace=True)
    OmegaConf.register_new_resolver("posexp_label", label, replace=True)
    OmegaConf.register_new_resolver("posexp_threads", threads, replace=True)
    present_launchers(store)


def label() -> str:
    """Return the names of the scheme, its inner schemes and the window: `rope`, `randomized-alibi-sliding`."""
    from hydra.core.hydra_config import HydraConfig

    choices = HydraConfig.get().runtime.choices
    parts = [choices["scheme"], *(choices[key] for key in sorted(choices) if key.startswith("scheme@"))]
    window = choices.get("window")
    return "-".join([*parts, *([window] if window and window != "full" else [])])


def exit_code(error: Exception) -> int:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, PosexpError):
        return error.exit_code
    return 2 if isinstance(error, (HydraException, OmegaConfBaseException)) else 1
