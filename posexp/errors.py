"""The errors that end a command: misuse, or a run that failed."""

from difflib import get_close_matches


class PosexpError(Exception):
    """An error that is printed as one line on stderr, without a traceback."""

    exit_code = 1


class Misuse(PosexpError):
    """A command, configuration or input file that cannot be used (exit code 2)."""

    exit_code = 2


class Inapplicable(Misuse):
    """A command that does not apply to one run. The other runs are unaffected."""


class RunFailed(PosexpError):
    """A valid command whose run could not be finished (exit code 1)."""


class Diverged(RunFailed):
    """A loss that is no longer finite."""


class Stopped(KeyboardInterrupt):
    """A stop by a signal, after saving. Unlike an ordinary exception, Stopped ends a whole sweep."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


def did_you_mean(word: str, options: list[str]) -> str:
    """Return a suggestion for the end of an error, or an empty string if no option resembles `word`."""
    close = get_close_matches(word, options, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
