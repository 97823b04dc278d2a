"""The place of a cell in its sweep. The processes of a launcher read it from the environment."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from posexp.output.console import clock, say, within

if TYPE_CHECKING:
    from posexp.runs.run import Run

VARIABLE = "POSEXP_SWEEP"  # the number of cells that a command runs, and when the first began
swept: "list[Run]" = []  # the runs of a sweep whose cells this machine has run or found done


def count(cells: int) -> None:
    """Let the processes that run the cells know their number."""
    os.environ.setdefault(VARIABLE, f"{cells} {time.time()}")


def forget() -> None:
    """End the sweep."""
    os.environ.pop(VARIABLE, None)


@contextmanager
def cell(number: int) -> Iterator[None]:
    """Name the cell of this `number`, from 0 on, before all progress in the block, and at its end say what remains."""
    known = os.environ.get(VARIABLE, "").split()
    if not known:
        yield
        return
    name, left = f"cell {number + 1} of {known[0]}", int(known[0]) - number - 1
    try:
        with within(name):
            yield
    finally:
        if left > 0 and not isinstance(sys.exception(), KeyboardInterrupt):
            seconds = (time.time() - float(known[1])) / (number + 1)  # of a cell, as they begin in this order
            say(f"{name} has ended, {left} to do, ETA {clock(left * seconds)}")
