"""Lines that a command says once, at its end, however many runs it has worked on."""

from collections.abc import Callable
from typing import Any

from posexp.output.console import say

collected: dict[Callable[[list[Any]], str], list[Any]] = {}


def collect(line: Callable[[list[Any]], str], item: Any) -> None:
    """Add `item` to what the closing line `line` is made of."""
    collected.setdefault(line, []).append(item)


def say_all() -> None:
    """Say every line."""
    for line, items in collected.items():
        say(line(items))
    collected.clear()
