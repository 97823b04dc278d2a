"""What a user reads on standard error: the log, and progress.

The log is the standard library's: `logging.getLogger("posexp")`, whose level and handlers a notebook may set.
"""

import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from posexp.storage.untrusted import visible

if TYPE_CHECKING:  # reading rows and losses does not take the import of rich
    from rich.console import Console

GONE = {errno.EIO, errno.EPIPE}  # of a closed terminal, and of a pipe whose reader has ended
MIN_SECONDS = 0.1  # between two changes of a bar


class ToStderr(logging.Handler):
    """Write each record as one line to the current sys.stderr, names and messages of others escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(visible(record.getMessage()), file=sys.stderr, flush=True)
        except OSError as error:  # a reader that ends must not end the work
            if error.errno in GONE:
                deafen()


logger = logging.getLogger("posexp")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)
if not logger.handlers:  # those of a caller stay alone
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
    `lines` is false, a plain line is said every `seconds_between_lines`, and less often as time goes by. The block may
    be entered again.

    Both show `name`, which may change, what is done and the time that all that remains will take. With the unit "%",
    what is done is a percentage. A command that works on several `runs` has one bar for all, and calls `begin_run`.
    """

    seconds_between_lines = 10.0

    def __init__(self, name: str, total: int, unit: str = "", done: int = 0, lines: bool = True, runs: int = 1):
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.runs, self.begun, self.known = runs, 0, 0  # runs that have begun, and their units
        self.began = self.last_line = time.monotonic()
        self.last_seen = self.began - MIN_SECONDS
        self.visible, self.lines = sys.stderr.isatty() and logger.isEnabledFor(logging.INFO), lines
        self.bar: Any = None
        if self.visible:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[state]}", markup=False),
                console=Console(stderr=True),
                transient=lines,
                redirect_stdout=sys.stdout.isatty(),
                refresh_per_second=2,
            )
            self.task = self.bar.add_task(self.title, total=total, completed=done, state=self.amount)

    @property
    def title(self) -> str:
        run = f"run {self.begun} of {self.runs}" if self.runs > 1 else ""
        return visible(" · ".join(filter(None, (*outer, run, self.name))))

    @property
    def amount(self) -> str:
        if self.unit == "%":
            return f"{100 * self.done / max(1, self.total):.0f} %"
        return f"{self.done:,} of {self.total:,} {self.unit}".rstrip()

    def __enter__(self) -> "progress":
        if self.bar:
            with suppress(OSError):  # as in `say`
                self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            with suppress(OSError):
                self.bar.stop()

    def at(self, name: str) -> None:
        """Show `name` from now on."""
        self.name = name
        if self.bar:
            self.bar.update(self.task, description=self.title)

    def begin_run(self, units: int) -> None:
        """Begin the next run, which has `units`. Every later run is expected to have the mean of the runs so far."""
        self.begun, self.known = self.begun + 1, self.known + units
        self.total = self.known + max(0, self.runs - self.begun) * self.known // self.begun
        if not self.done:
            self.began = time.monotonic()  # earlier runs had nothing to do

    def skip(self, units: int) -> None:
        """`units` of this run will not be done."""
        self.known, self.total = self.known - units, self.total - units

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        now = time.monotonic()
        if now < self.last_seen + MIN_SECONDS and self.done < self.total:
            return  # a unit may take microseconds
        self.last_seen = now
        left = f"ETA {clock((self.total - self.done) * (now - self.began) / max(1, self.done))}"
        self.update(self.done, left)
        pause = self.seconds_between_lines * min(6.0, max(1.0, (now - self.began) / 300))
        if self.lines and not self.visible and now - self.last_line >= pause:
            self.last_line = now
            say(f"{self.title}: {self.amount}, {left}")

    def update(self, done: int, state: str) -> None:
        """The bar alone: how much is done, and what stands behind it."""
        self.done = done
        if self.bar:
            state = f"{self.amount}  {state}"
            self.bar.update(self.task, description=self.title, total=self.total, completed=done, state=state)


outer: list[str] = []  # what the title of every progress begins with


@contextmanager
def within(name: str) -> Iterator[None]:
    """Begin the title of every progress inside the block with `name`, such as "cell 2 of 6"."""
    outer.append(name)
    try:
        yield
    finally:
        outer.pop()


def console() -> "Console":
    """A terminal's own width; enough for every column where the output goes to a file or a pipe."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)
