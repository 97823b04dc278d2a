"""The outcome of one process, serialised so that another process can raise it."""

import json
import signal
import socket
import time
import traceback
from typing import Any

from posexp.config.explain import one_line
from posexp.errors import Misuse, PosexpError, RunFailed, Stopped
from posexp.jobs.ranks import place


class Lost(RunFailed):
    """The failure of a process because another one died."""


class Alone(RunFailed):
    """The failure of one process only, which that process must print itself."""


KINDS: list[tuple[str, type[BaseException]]] = [
    ("stopped", KeyboardInterrupt),
    ("misuse", Misuse),
    ("lost", Lost),
    ("alone", Alone),
    ("failed", RunFailed),
]


def serialise(error: BaseException) -> str:
    """Serialise an exception as JSON so that another process can raise it again."""
    kind = next((kind for kind, known in KINDS if isinstance(error, known)), "alone")
    end = {"kind": kind, "line": error_line(error), "signum": getattr(error, "signum", int(signal.SIGINT))}
    return json.dumps(end | {"time": time.time(), "trace": "".join(traceback.format_exception(error))})


def deserialise(end: dict[str, Any]) -> BaseException:
    """Return the exception that `serialise` wrote, with its traceback as a note."""
    if end["kind"] == "stopped":
        return Stopped(end["line"], end["signum"])
    error = dict(KINDS)[end["kind"]](end["line"])
    error.add_note(end["trace"])  # for HYDRA_FULL_ERROR=1
    return error


def error_line(error: BaseException) -> str:
    """Return an error as one line, with rank and host unless the error is posexp's own."""
    if isinstance(error, PosexpError) or not isinstance(error, Exception):
        return str(error)
    return f"rank {place().rank} on {socket.gethostname()}: {one_line(error, 'train')}"
