"""One table for the terminal, Markdown and LaTeX.

In a terminal of at least 80 characters cells break only between words. LaTeX needs booktabs, and LuaLaTeX or XeLaTeX
for names in scripts other than Latin.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from posexp.output.text import escape, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

LONGEST = 28  # characters per line of a cell when the columns do not all fit
GAP = 3  # characters between columns
LATEX = {
    **{letter: f"\\{letter}" for letter in "{}$&#%_"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\`{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # after \\ they would be arguments
    **{"·": r"$\cdot$", "×": r"$\times$", "–": "--", "−": "$-$"},
}

Cell = Union[str, "Text"]  # one or several lines: a value, then what qualifies it


@dataclass(frozen=True)
class Grid:
    """A table. The first `names` columns identify a row, and are repeated where a terminal's table is split."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    title: str = field(default="", kw_only=True)

    def show(self, console: "Console") -> None:
        """Print the title and the table, split into several tables if it is too wide."""
        from rich.text import Text

        if self.title:
            console.print(Text(self.title, style="bold"))
        for table in self.pieces(console.width):
            console.print(table)

    def pieces(self, width: int) -> list["Table"]:
        """Return tables of at most `width` characters. A name is folded only if it does not fit beside a value."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in self.rows]
        columns = [[row[i].plain for row in texts] for i in range(len(self.heads))]
        wanted = [size_of(*column) for column in zip(self.heads, columns, strict=True)]
        sizes = list(wanted)
        if total_width(wanted) > width:
            sizes = [size_of(*column, LONGEST) for column in zip(self.heads, columns, strict=True)]
            beside = total_width([0, *sizes[1 : self.names], max(sizes[self.names :], default=0)])
            sizes[0] = max(1, min(sizes[0], width - beside))
        found = []
        for part in parts(sizes, width, self.names):
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            spare = max(0, width - total_width([sizes[i] for i in part]))
            for i in part:
                more = min(spare, wanted[i] - sizes[i])
                spare -= more
                right = i > 0 and is_numeric(columns[i])
                table.add_column(
                    self.heads[i], width=sizes[i] + more, justify="right" if right else "left", overflow="fold"
                )
            for row in texts:
                table.add_row(*(row[i] for i in part))
            found.append(table)
        return found

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown, without the title."""
        cells = [[lines_of(cell) for cell in row] for row in self.rows]
        columns = range(len(self.heads))
        rule = ["---:" if i and is_numeric([row[i][0] for row in cells]) else "---" for i in columns]
        body = [["<br>".join(map(escape, cell)) for cell in row] for row in cells]
        return "\n".join(f"| {' | '.join(row)} |" for row in [[*map(escape, self.heads)], rule, *body])

    def latex(self, caption: str, label: str) -> str:
        """Return a table environment. The further lines of a row's cells stand below their values, in small print."""
        body = []
        for row in self.rows:
            cells = [lines_of(cell) for cell in row]
            bold = [not isinstance(cell, str) and "bold" in str(cell.style) for cell in row]
            words = [latex_escape(lines[0]) for lines in cells]
            body.append(
                latex_line(rf"\textbf{{{word}}}" if best else word for word, best in zip(words, bold, strict=True))
            )
            for n in range(1, max(map(len, cells))):
                small = [latex_escape(lines[n]) if n < len(lines) else "" for lines in cells]
                body.append(latex_line(rf"{{\scriptsize {word}}}" if word else "" for word in small))
        columns = "l" * self.names + "r" * (len(self.heads) - self.names)
        return "\n".join(
            [
                r"\begin{table}",
                r"  \centering",
                rf"  \caption{{{latex_escape(caption)}}}",
                rf"  \label{{{re.sub(r'[^A-Za-z0-9:]', '-', label)}}}",
                r"  \small",
                rf"  \begin{{tabular}}{{{columns}}}",
                r"    \toprule",
                latex_line(map(latex_escape, self.heads)),
                r"    \midrule",
                *body,
                r"    \bottomrule",
                r"  \end{tabular}",
                r"\end{table}",
            ]
        )


def lines_of(cell: Cell) -> list[str]:
    return (cell if isinstance(cell, str) else cell.plain).split("\n")


def is_numeric(column: Sequence[str]) -> bool:
    return any(cell[:1] in "+-−<0123456789" for cell in column if cell)


def latex_line(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def latex_escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in one_line(text))


def size_of(head: str, cells: list[str], longest: int | None = None) -> int:
    """Return the width of a column. Headings break between any words, cell lines only beyond `longest` characters."""
    lines = [len(line) for cell in cells for line in cell.split("\n")]
    words = [len(word) for cell in (head, *cells) for word in cell.split()]
    return max([1, *words, min(max(lines, default=0), longest or max(lines, default=0))])


def total_width(sizes: list[int]) -> int:
    """Return the total width of columns, gaps included."""
    return sum(size + GAP for size in sizes)


def parts(sizes: list[int], width: int, names: int) -> list[list[int]]:
    """Return the column indices of each table: the first `names`, then as many others as fit."""
    first = list(range(names))
    found = [list(first)]
    for i in range(names, len(sizes)):
        if len(found[-1]) > names and total_width([sizes[j] for j in [*found[-1], i]]) > width:
            found.append(list(first))
        found[-1].append(i)
    return found
