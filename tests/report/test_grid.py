"""No table breaks inside a word."""

import re
from pathlib import Path

import pytest
from rich.console import Console

import posexp
from posexp.compare.table import HEAD as COMPARISON
from posexp.output.grid import Grid

HEAD = (*COMPARISON, "p (joint)", "seeds", "verdict")
CHANGE = "-0.0123 [-0.0234, -0.0012]"
LINES = [
    [curve, length, "21.40", "22.10", CHANGE, "-1.22 [-2.31, -0.12]", "0.0123", "0.0246", "3", verdict]
    for curve in ("rope (base=500000, fraction=0.25)", "randomized-kerple_power-alternate")
    for length, verdict in (("128", "alibi is better"), ("16384", "learned undefined (seeds 0, 1, 2) and so on"))
]


def shown(width: int, grid: Grid) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        grid.show(console)
    return captured.get()


@pytest.mark.parametrize("width", range(80, 210, 5))
def test_a_table_breaks_between_words_alone(width: int) -> None:
    text = shown(width, Grid(("curve", *HEAD), LINES, names=2, title="a title of many words · " * 5))
    assert max(map(len, text.splitlines())) <= width
    words = {word for line in [HEAD, *LINES] for cell in line for word in cell.split()}
    assert words <= set(text.split()) and "…" not in text


def test_names_stand_in_every_piece_and_all_is_one_piece_where_it_fits() -> None:
    assert len(re.findall("^ curve", shown(210, Grid(("curve", *HEAD), LINES, names=2)), re.M)) == 1
    narrow = shown(80, Grid(("curve", *HEAD), LINES, names=2))
    assert narrow.count("curve ") == narrow.count("16384") / 2 == narrow.count("(base=500000,") / 2 > 1


def test_a_name_without_room_is_folded_and_no_value_is() -> None:
    text = shown(80, Grid(["curve", "128"], [["x" * 90, "1234.5678"]]))
    assert "1234.5678" in text.split() and text.count("x") == 90


def test_every_table_of_the_terminal_is_made_in_one_place() -> None:
    folder = Path(posexp.__file__).parent
    made = {path.name for path in folder.rglob("*.py") if "rich.table" in path.read_text()}
    assert made == {"grid.py"}
