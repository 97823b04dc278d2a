"""How one of several processes ended, told to another one, which raises it."""

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
    """Another process is gone. It knows why."""


class Alone(RunFailed):
    """What went wrong in one process only, and so has to be told by it."""


KINDS: list[tuple[str, type[BaseException]]] = [
    ("stopped", KeyboardInterrupt),
    ("misuse", Misuse),
    ("lost", Lost),
    ("alone", Alone),
    ("failed", RunFailed),
]


def told(error: BaseException) -> str:
    """How a process ended, as JSON: for another one to raise, which is `retold`."""
    kind = next((kind for kind, known in KINDS if isinstance(error, known)), "alone")
    end = {"kind": kind, "line": error_line(error), "signum": getattr(error, "signum", int(signal.SIGINT))}
    return json.dumps(end | {"time": time.time(), "trace": "".join(traceback.format_exception(error))})


def retold(end: dict[str, Any]) -> BaseException:
    if end["kind"] == "stopped":
        return Stopped(end["line"], end["signum"])
    error = dict(KINDS)[end["kind"]](end["line"])
    error.add_note(end["trace"])  # for HYDRA_FULL_ERROR=1
    return error


def error_line(error: BaseException) -> str:
    """One line; what is not a message of posexp's own says which process it is from."""
    if isinstance(error, PosexpError) or not isinstance(error, Exception):
        return str(error)
    return f"rank {place().rank} on {socket.gethostname()}: {one_line(error, 'train')}"
