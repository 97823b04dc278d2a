"""Tables as the terminal and Markdown show them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from posexp.report import beyond
from posexp.report.measure import EXACT_MATCH, digits
from posexp.report.rows import Table, apart, facts, listed, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    from posexp.evaluation.verdicts import Usable, Verdict


number = digits  # of perplexities


def interval(table: Table, key: tuple[str, int]) -> tuple[str, str] | None:
    value = table.values.get(key)
    if value is None or value.low is None or value.high is None:
        return None
    return table.measure.write(value.low), table.measure.write(value.high)


def starred(length: int, train_lengths: tuple[int, ...]) -> str:
    return f"{length}*" if length in train_lengths else str(length)


def trained_at(table: Table) -> str:
    lengths = listed(table.train_lengths)
    return f"trained up to size {lengths}" if table.measure == EXACT_MATCH else f"trained at {lengths} tokens"


def about(table: Table) -> str:
    return f"{table.measure.axis} · {facts(table)} · {trained_at(table)}"


def tabled(shown: list[Table]) -> list[Table]:
    return [table for table in shown if not table.drawn_only]


def how_to_read(shown: list[Table]) -> list[str]:
    """What the numbers of these tables are, then what stands around them."""
    found = []
    measures = dict.fromkeys(table.measure for table in shown)
    for measure in measures:
        protocols = ", ".join(dict.fromkeys(table.protocol for table in shown if table.measure == measure))
        found.append(
            f"Each cell{f' of {protocols}' if len(measures) > 1 else ''} is {measure.meaning}. In brackets: the lowest "
            "and the highest seed where two or more have a value, otherwise the 95 % interval over "
            f"{measure.over}, by {measure.by}."
        )
    found.append("* marks the training length; – was not measured.")
    marks = any(word in beyond.MARKS for table in shown for word in table.words.values())
    return [" ".join(found), *([beyond.LEGEND] if marks else [])]


def print_tables(
    shown: list[Table],
    console: "Console",
    verdicts: "Sequence[Verdict]" = (),
    usable: "Sequence[Usable]" = (),
) -> None:
    """Prints all tables but those that are only drawn, then the verdicts; what is too wide for the console continues
    below itself."""
    from rich.text import Text

    for table in tabled(shown):
        console.print(Text.assemble((table.protocol, "bold"), f" · {about(table)}"), soft_wrap=True)
        for grid in grids(table, console.width):
            console.print(grid)
        for note in table.notes:
            console.print(Text(note, style="red"), soft_wrap=True)
        console.print()
    for line in how_to_read(tabled(shown)) if tabled(shown) else []:
        console.print(Text(line, style="dim"))
    if verdicts:
        console.print(Text(f"\n{beyond.HEADING}", style="bold"))
        for grid in beyond_grids(verdicts, usable, console.width):
            console.print(grid)
        for line in beyond.how_to_read():
            console.print(Text(line, style="dim"))
    for line in apart(shown):
        console.print(Text(line), soft_wrap=True)


def grids(table: Table, width: int) -> list["Grid"]:
    """The table as one rich table, or several pieces of at most `width` characters."""
    from rich.text import Text

    several = len(table.train_lengths) > 1
    heads = ["curve", *(["trained at"] if several else [])]
    rows = []
    for curve in table.curves:
        first = [one_line(curve), *([listed(table.trained[curve])] if several else [])]
        cells = [terminal_cell(table, (curve, length)) for length in table.lengths]
        rows.append(([Text(text) for text in first], cells))
    return pieces(heads, [starred(length, table.train_lengths) for length in table.lengths], rows, width)


def beyond_grids(verdicts: "Sequence[Verdict]", usable: "Sequence[Usable]", width: int) -> list["Grid"]:
    from rich.text import Text

    def cell(lines: list[str]) -> Text:
        word, *others = lines
        style = {"breaks": "red", "uses": "green"}.get(word.split()[0], "")
        return Text("\n").join([Text(word, style=style), *(Text(line, style="dim") for line in others)])

    lengths, rows = beyond.grid(verdicts, usable)
    texts = [([Text(one_line(curve)), Text(up_to)], [cell(lines) for lines in cells]) for curve, up_to, cells in rows]
    return pieces(["curve", "usable\nlength"], list(map(str, lengths)), texts, width)


def pieces(
    heads: list[str], lengths: list[str], rows: list[tuple[list["Text"], list["Text"]]], width: int
) -> list["Grid"]:
    """Rich tables of at most `width` characters, side by side pieces of one: each row is (first cells, cells by
    length), and the first cells stand in every piece."""
    from rich import box
    from rich.table import Table as Grid

    names = min(max(len(name) for name in (heads[0], *(first[0].plain for first, _ in rows))), max(16, width // 3))
    room = width - names - 4 - sum(max(map(len, head.split("\n"))) + 4 for head in heads[1:])
    parts: list[list[int]] = [[]]
    used = 0
    for i, length in enumerate(lengths):
        lines = [line for _, cells in rows for line in cells[i].plain.split("\n")]
        need = max([len(line) for line in lines] + [len(length)]) + 3  # padding and divider
        if parts[-1] and used + need > room:
            parts.append([])
            used = 0
        parts[-1].append(i)
        used += need
    found = []
    for part in parts:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column(heads[0], max_width=names, overflow="fold")
        for head in heads[1:]:
            grid.add_column(head, justify="right")
        for i in part:
            grid.add_column(lengths[i], justify="right", overflow="fold")
        for first, cells in rows:
            grid.add_row(*first, *(cells[i] for i in part))
        found.append(grid)
    return found


def terminal_cell(table: Table, key: tuple[str, int]) -> "Text":
    """The value, its interval and the failure, one below the other."""
    from rich.text import Text

    lines = [Text(shown_value(table, key))] if key in table.values else []
    if bounds := interval(table, key):
        low, high = bounds
        if "e" in low and low.split("e")[1] == high.split("e")[-1]:  # 2.9–3.9e+04: columns stay narrow
            low = low.split("e")[0]
        lines.append(Text(f"{low}–{high}", style="dim"))
    lines += [Text(line, style="red") for line in failure(table, key).split(", ") if line]
    return Text("\n").join(lines) if lines else Text("–", style="dim")


def shown_value(table: Table, key: tuple[str, int]) -> str:
    """With the mark of its verdict."""
    text = table.measure.write(table.values[key].value)
    mark = beyond.MARKS.get(table.words.get(key, ""))
    return f"{text} {mark}" if mark else text


def failure(table: Table, key: tuple[str, int]) -> str:
    return table.cells[key].failure if key in table.cells else ""


def markdown(shown: list[Table], verdicts: "Sequence[Verdict]" = (), usable: "Sequence[Usable]" = ()) -> str:
    """The same tables as GitHub shows them, and how to read their intervals."""
    parts = [f"# {shown[0].measure.title} by evaluation length"]
    for table in tabled(shown):
        several = len(table.train_lengths) > 1
        head = ["curve", *(["trained at"] if several else [])]
        head += [escape(starred(length, table.train_lengths)) for length in table.lengths]
        rows = []
        for curve in table.curves:
            cells = [escape(curve), *([listed(table.trained[curve])] if several else [])]
            rows.append(cells + [markdown_cell(table, (curve, length)) for length in table.lengths])
        parts += [f"## {escape(table.protocol)}", escape(about(table)), pipe_table(head, rows)]
        if table.notes:
            parts.append("\n".join(f"- {escape(note)}" for note in table.notes))
    parts += [escape(line) for line in how_to_read(tabled(shown))] if tabled(shown) else []
    if verdicts:
        lengths, beyond_rows = beyond.grid(verdicts, usable)
        lines = [
            [escape(curve), escape(up_to), *("<br>".join(map(escape, cell)) for cell in cells)]
            for curve, up_to, cells in beyond_rows
        ]
        parts += [f"## {beyond.HEADING}", pipe_table(["curve", "usable length", *map(str, lengths)], lines)]
        parts += [escape(line) for line in beyond.how_to_read()]
    parts += [escape(line) for line in apart(shown)]
    parts += [
        f"{escape(table.title)} is in curves.png, curves.svg and rows.csv." for table in shown if table.drawn_only
    ]
    return "\n\n".join(parts) + "\n"


def markdown_cell(table: Table, key: tuple[str, int]) -> str:
    bounds, missing = interval(table, key), failure(table, key)
    parts = [shown_value(table, key)] if key in table.values else []
    parts += [f"[{bounds[0]}, {bounds[1]}]"] if bounds else []
    parts += [f"({escape(missing)})" if parts else escape(missing)] if missing else []
    return " ".join(parts) or "–"


def pipe_table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(map(line_of, [head, ["---"] + ["---:"] * (len(head) - 1), *rows]))


def line_of(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """`text` on one line, with every character that Markdown or GitHub's mathematics would act on shown as itself."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&#])", r"\\\1", one_line(text))
