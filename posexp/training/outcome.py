"""The outcome of one process, serialised so that another process can raise it."""

import json
import signal
import socket
import traceback

from posexp.config.explain import explain_error
from posexp.errors import Misuse, PosexpError, RunFailed, Stopped
from posexp.jobs.ranks import place
from posexp.storage import untrusted


class PeerLost(RunFailed):
    """The failure of a rank because another one has died."""


class RankFailed(RunFailed):
    """The failure of one rank only, which that rank must print itself."""


KINDS = {kind.__name__: kind for kind in (PeerLost, RankFailed, RunFailed, Misuse)}


def serialise(error: BaseException) -> str:
    """Serialise an exception as JSON so that another process can raise it again."""
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in KINDS), RankFailed.__name__)
    signum = getattr(error, "signum", int(signal.SIGINT)) if isinstance(error, KeyboardInterrupt) else 0
    return json.dumps([kind, signum, error_line(error), "".join(traceback.format_exception(error))])


def deserialise(outcome: bytes) -> BaseException:
    """Return the exception that `serialise` wrote, with its traceback as a note."""
    kind, signum, line, trace = untrusted.parsed(outcome)
    if signum:
        return Stopped(line, signum)
    error = KINDS[kind](line)
    error.add_note(trace)  # for HYDRA_FULL_ERROR=1
    return error


def error_line(error: BaseException) -> str:
    """Return an error as one line, with rank and host unless the error is posexp's own."""
    if isinstance(error, PosexpError) or not isinstance(error, Exception):
        return str(error)
    return f"rank {place().rank} on {socket.gethostname()}: {explain_error(error, 'train')}"
