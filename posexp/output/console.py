"""What a user reads on standard error: the log, and progress.

The log is the standard library's: `logging.getLogger("posexp")`, whose handlers a notebook may replace.
"""

import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console

from posexp.storage.untrusted import visible

GONE = {errno.EIO, errno.EPIPE}  # of a closed terminal, and of a pipe whose reader has ended


class ToStderr(logging.Handler):
    """Write each record as one line to the current sys.stderr, names and messages of others escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(visible(record.getMessage()), file=sys.stderr, flush=True)
        except OSError as error:  # a reader that ends must not end the work
            if error.errno in GONE:
                deafen()


logger = logging.getLogger("posexp")
logger.setLevel(logging.INFO)
logger.propagate = False  # Hydra gives the root logger handlers of its own
logger.addHandler(ToStderr())
say: Callable[[str], None] = logger.info  # a line beside the output of the command


def deafen() -> None:
    """Send standard error to /dev/null: Python would write to it again at exit, and change the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def silence() -> Iterator[None]:
    """Log nothing inside the block."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class progress:  # noqa: N801 - used like a function
    """`with progress(…) as bar:` shows a rich progress bar on a terminal while the block lasts. Elsewhere, unless
    `lines` is false, a plain line is said at most every `seconds_between_lines`. The block may be entered again."""

    seconds_between_lines = 10.0

    def __init__(self, name: str, total: int, unit: str = "", done: int = 0, lines: bool = True):
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.began = self.last_line = time.monotonic()
        self.visible, self.lines = sys.stderr.isatty() and not logger.disabled, lines
        self.bar: Any = None
        if self.visible:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}", markup=False))
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                *columns,
                console=Console(stderr=True),
                transient=lines,
                redirect_stdout=sys.stdout.isatty(),
                refresh_per_second=2,
            )
            self.task = self.bar.add_task(visible(name), total=total, completed=done, state=unit)

    def __enter__(self) -> "progress":
        if self.bar:
            with suppress(OSError):  # as in `say`
                self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            with suppress(OSError):
                self.bar.stop()

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        now = time.monotonic()
        left = (self.total - self.done) * (now - self.began) / self.done
        self.update(self.done, f"{self.unit}  ETA {clock(left)}")
        if self.lines and not self.visible and now - self.last_line >= self.seconds_between_lines:
            self.last_line = now
            say(f"{self.name}: {self.done:,} of {self.total:,} {self.unit}, ETA {clock(left)}")

    def update(self, done: int, state: str) -> None:
        """The bar alone: how much is done, and what stands behind it."""
        if self.bar:
            self.bar.update(self.task, completed=done, state=state)


def console() -> Console:
    """A terminal's own width; enough for every column where the output goes to a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=200)
