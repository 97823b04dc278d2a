"""Terminal tables whose cells break only between words, at any width of at least 80 characters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

LONGEST = 28  # characters per line of a cell when the columns do not all fit
GAP = 3  # characters between columns


def print_grid(
    title: str, heads: Sequence[str], rows: Sequence[Sequence["str | Text"]], console: "Console", names: int = 1
) -> None:
    """Print the table below its title, split into several tables by `grids` if it is too wide."""
    from rich.text import Text

    if title:
        console.print(Text(title, style="bold"))
    for grid in grids(heads, rows, console.width, names):
        console.print(grid)


def grids(heads: Sequence[str], rows: Sequence[Sequence["str | Text"]], width: int, names: int = 1) -> list["Table"]:
    """Return the table as one rich table, or split it into several of at most `width` characters.

    The first `names` columns are repeated in every table. Columns of numbers are right-aligned. A name is folded only
    if it does not fit beside a value.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    columns = [[row[i].plain for row in texts] for i in range(len(heads))]
    wanted = [size_of(*column) for column in zip(heads, columns, strict=True)]
    sizes = list(wanted)
    if taken(wanted) > width:
        sizes = [size_of(*column, LONGEST) for column in zip(heads, columns, strict=True)]
        beside = taken([0, *sizes[1:names], max(sizes[names:], default=0)])
        sizes[0] = max(1, min(sizes[0], width - beside))
    found = []
    for part in parts(sizes, width, names):
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        spare = max(0, width - taken([sizes[i] for i in part]))
        for i in part:
            more = min(spare, wanted[i] - sizes[i])
            spare -= more
            right = any(cell[:1] in "+-−<0123456789" for cell in columns[i] if cell)
            grid.add_column(
                heads[i], width=sizes[i] + more, justify="right" if right and i else "left", overflow="fold"
            )
        for row in texts:
            grid.add_row(*(row[i] for i in part))
        found.append(grid)
    return found


def size_of(head: str, cells: list[str], longest: int | None = None) -> int:
    """Return the width of a column. Headings break between any words, cell lines only beyond `longest` characters."""
    lines = [len(line) for cell in cells for line in cell.split("\n")]
    words = [len(word) for cell in (head, *cells) for word in cell.split()]
    return max([1, *words, min(max(lines, default=0), longest or max(lines, default=0))])


def taken(sizes: list[int]) -> int:
    """Return the total width of columns, gaps included."""
    return sum(size + GAP for size in sizes)


def parts(sizes: list[int], width: int, names: int) -> list[list[int]]:
    """Return the column indices of each table: the first `names`, then as many others as fit."""
    first = list(range(names))
    found = [list(first)]
    for i in range(names, len(sizes)):
        if len(found[-1]) > names and taken([sizes[j] for j in [*found[-1], i]]) > width:
            found.append(list(first))
        found[-1].append(i)
    return found
