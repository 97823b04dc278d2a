"""The findings of posexp doctor, a line each."""

from dataclasses import dataclass
from enum import Enum


class Mark(Enum):
    """The colours of what is as it should be, of what is worth knowing, and of what would stop a training run."""

    ok = "green"
    note = "yellow"
    problem = "bold red"


@dataclass(frozen=True)
class Finding:
    """A fact about `name`, and the remedy if it is not as one would want."""

    mark: Mark
    name: str
    fact: str
    remedy: str = ""


def finding(name: str, fact: str, remedy: str = "") -> Finding:
    """Return a note if there is a remedy, otherwise what is as it should be."""
    return Finding(Mark.note if remedy else Mark.ok, name, fact, remedy)


def problem(name: str, fact: str, remedy: str) -> Finding:
    return Finding(Mark.problem, name, fact, remedy)


def size(count: float) -> str:
    """Write a number of bytes: 0.5 GiB, 120 GiB."""
    gib = count / (1 << 30)
    return f"{gib:.1f} GiB" if gib < 10 else f"{gib:,.0f} GiB"
