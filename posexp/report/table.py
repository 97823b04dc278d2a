"""Tables as the terminal and Markdown show them."""

import math
import re
from typing import TYPE_CHECKING

from posexp.report.rows import Cell, Table, apart, facts, listed, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

HOW_TO_READ = (
    "Each cell is a perplexity, exp of the mean loss over seeds; lower is better. In brackets: the lowest and the "
    "highest seed where two or more have a value, otherwise the 95 % interval of a bootstrap over documents. "
    "* marks the training length; – was not measured."
)
DRAWN_ONLY = "per_position"  # hundreds of lengths: a curve and rows.csv, no table


def number(ppl: float) -> str:
    """Four significant digits, two from ten thousand on: 21.40, 1532, 1.2e+05."""
    if ppl >= 9999.5:
        return f"{ppl:.1e}"
    return f"{ppl:.{max(0, 3 - math.floor(math.log10(ppl)))}f}"


def interval(cell: Cell) -> tuple[str, str] | None:
    return None if cell.low is None or cell.high is None else (number(cell.low), number(cell.high))


def starred(length: int, train_lengths: tuple[int, ...]) -> str:
    return f"{length}*" if length in train_lengths else str(length)


def trained_at(table: Table) -> str:
    return f"trained at {listed(table.train_lengths)} tokens"


def tabled(shown: list[Table]) -> list[Table]:
    return [table for table in shown if table.protocol != DRAWN_ONLY]


def print_tables(shown: list[Table], console: "Console") -> None:
    """Prints all tables but per-position ones; a table too wide for the console continues below itself."""
    from rich.text import Text

    for table in tabled(shown):
        console.print(
            Text.assemble((table.protocol, "bold"), f" · {facts(table)} · {trained_at(table)}"), soft_wrap=True
        )
        for grid in grids(table, console.width):
            console.print(grid)
        for note in table.notes:
            console.print(Text(note, style="red"), soft_wrap=True)
        console.print()
    if tabled(shown):
        console.print(Text(HOW_TO_READ, style="dim"))
    for line in apart(shown):
        console.print(Text(line), soft_wrap=True)


def grids(table: Table, width: int) -> list["Grid"]:
    """The table as one rich table, or several side by side pieces of at most `width` characters."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    several = len(table.train_lengths) > 1
    texts = {key: terminal_cell(cell) for key, cell in table.cells.items()}
    names = min(max(len(name) for name in ("curve", *map(one_line, table.curves))), max(16, width // 3))
    room = width - names - 4 - (14 if several else 0)
    pieces: list[list[int]] = [[]]
    used = 0
    for length in table.lengths:
        lines = [line for curve in table.curves for line in texts.get((curve, length), Text("–")).plain.split("\n")]
        need = max([len(line) for line in lines] + [len(str(length)) + 1]) + 3  # padding and divider
        if pieces[-1] and used + need > room:
            pieces.append([])
            used = 0
        pieces[-1].append(length)
        used += need
    found = []
    for lengths in pieces:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column("curve", max_width=names, overflow="fold")
        if several:
            grid.add_column("trained at", justify="right")
        for length in lengths:
            grid.add_column(starred(length, table.train_lengths), justify="right", overflow="fold")
        for curve in table.curves:
            first = [Text(one_line(curve))] + ([Text(listed(table.trained[curve]))] if several else [])
            grid.add_row(*first, *(texts.get((curve, length), Text("–", style="dim")) for length in lengths))
        found.append(grid)
    return found


def terminal_cell(cell: Cell) -> "Text":
    """The perplexity, its interval and the failure, one below the other."""
    from rich.text import Text

    lines = [] if cell.ppl is None else [Text(number(cell.ppl))]
    if bounds := interval(cell):
        low, high = bounds
        if "e" in low and low.split("e")[1] == high.split("e")[-1]:  # 2.9–3.9e+04: columns stay narrow
            low = low.split("e")[0]
        lines.append(Text(f"{low}–{high}", style="dim"))
    lines += [Text(line, style="red") for line in cell.failure.split(", ") if line]
    return Text("\n").join(lines)


def markdown(shown: list[Table]) -> str:
    """The same tables as GitHub shows them, and how to read their intervals."""
    parts = ["# Perplexity by evaluation length"]
    for table in tabled(shown):
        several = len(table.train_lengths) > 1
        head = ["curve", *(["trained at"] if several else [])]
        head += [escape(starred(length, table.train_lengths)) for length in table.lengths]
        lines = [line_of(head), line_of(["---"] + ["---:"] * (len(head) - 1))]
        for curve in table.curves:
            cells = [escape(curve), *([listed(table.trained[curve])] if several else [])]
            cells += [markdown_cell(table.cells.get((curve, length))) for length in table.lengths]
            lines.append(line_of(cells))
        parts += [f"## {escape(table.protocol)}", escape(f"{facts(table)} · {trained_at(table)}"), "\n".join(lines)]
        if table.notes:
            parts.append("\n".join(f"- {escape(note)}" for note in table.notes))
    if tabled(shown):
        parts.append(escape(HOW_TO_READ))
    parts += [escape(line) for line in apart(shown)]
    if len(tabled(shown)) < len(shown):
        parts.append("Perplexity by position is in curves.png, curves.svg and rows.csv.")
    return "\n\n".join(parts) + "\n"


def markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    bounds = interval(cell)
    parts = [] if cell.ppl is None else [number(cell.ppl)]
    parts += [f"[{bounds[0]}, {bounds[1]}]"] if bounds else []
    parts += [f"({escape(cell.failure)})" if parts else escape(cell.failure)] if cell.failure else []
    return " ".join(parts)


def line_of(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """`text` on one line, with every character that Markdown or GitHub's mathematics would act on shown as itself."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&#])", r"\\\1", one_line(text))
