"""The two ways a command can end badly: what was typed cannot be done, or a run failed."""

from difflib import get_close_matches


class PosexpError(Exception):
    """Ends in one line on stderr, without a traceback."""

    exit_code = 1


class Misuse(PosexpError):
    """The command, its configuration or its input files cannot be used as given (exit code 2)."""

    exit_code = 2


class Inapplicable(Misuse):
    """There is nothing to do for this run, which spoils nothing for the others."""


class RunFailed(PosexpError):
    """The command was sound, but the run could not be finished (exit code 1)."""


class Diverged(RunFailed):
    """The loss is no longer finite."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the work; what there was is saved. Ends a whole sweep, as no ordinary exception would."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


def did_you_mean(word: str, options: list[str]) -> str:
    close = get_close_matches(word, options, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
