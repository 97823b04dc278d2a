"""Tables for the terminal and in Markdown."""

from typing import TYPE_CHECKING

from posexp.output.grid import print_grid
from posexp.output.text import escape, markdown_line, one_line
from posexp.report import verdict_table
from posexp.report.answer import answer
from posexp.report.metric import EXACT_MATCH, digits
from posexp.report.tables import MAX_LENGTHS, Table, facts, listed, span

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


number = digits  # formats perplexities
DRAWN = "The lengths are too many for a table: the pictures and rows.csv have them."


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


def how_to_read(table: Table) -> list[str]:
    """Return the lines that explain the values, intervals, marks and verdicts of a table."""
    if table.drawn_only:
        return []
    measure = table.measure
    found = [f"Each cell is {measure.meaning}. * marks the training length; – was not measured."]
    if any(interval(table, key) for key in table.values):
        found.append(
            "Ranges are the lowest and the highest seed if two or more have a value, otherwise the 95 % interval "
            f"over {measure.over}, by {measure.by}."
        )
    if any(word in verdict_table.MARKS for word in table.words.values()):
        found.append(verdict_table.LEGEND)
    return found + verdict_table.how_to_read(table.verdicts)


def unexplained(table: Table, explained: set[str]) -> list[str]:
    """Return the explanations of a table that are not yet in `explained`, and add them to it."""
    found = [line for line in how_to_read(table) if line not in explained]
    explained.update(found)
    return found


def print_tables(shown: list[Table], console: "Console", all_sets: bool = False) -> None:
    """Print the answer, the headline with its verdicts, and one line for each other table.

    With `all_sets` print all tables in full. Tables that are too wide for the console are split.
    """
    from rich.text import Text

    headline, *others = shown
    if words := answer(headline):
        console.print(Text(f"{words}\n"))
    explained: set[str] = set()
    for table in shown if all_sets else [headline]:
        if table is not headline:
            console.print()
        print_table(table, console)
        for line in unexplained(table, explained):
            console.print(Text(line, style="dim"))
    if others and not all_sets:
        console.print(Text("\nAlso measured, in table.md and by posexp report --all:", style="bold"))
        for table in others:
            console.print(Text(f"{table.protocol} · {summary(table)}"))


def print_table(table: Table, console: "Console") -> None:
    from rich.text import Text

    console.print(Text.assemble((table.protocol, "bold"), f" · {about(table)}"))
    if table.drawn_only:
        console.print(Text(DRAWN, style="dim"))
        return
    heads, rows = value_rows(table)
    print_grid("", heads, rows, console, names=len(heads) - len(table.lengths))
    for note in table.notes:
        console.print(Text(note, style="red"))
    if table.verdicts and not too_many(table):
        print_grid(verdict_table.HEADING, *verdict_rows(table), console, names=2)


def summary(table: Table) -> str:
    """Return the range of lengths, the facts and the range of values of a table."""
    values = [value.value for value in table.values.values()]
    write = table.measure.write
    found = f"{table.measure.axis} {write(min(values))} to {write(max(values))}" if values else "no values"
    return f"{span((min(table.lengths), max(table.lengths)))} · {facts(table)} · {found}"


def too_many(table: Table) -> bool:
    """Return whether the verdicts have too many lengths for a table."""
    return len({verdict.place.length for verdict in table.verdicts}) > MAX_LENGTHS


def value_rows(table: Table) -> tuple[list[str], list[list["str | Text"]]]:
    """Return (headings, rows): the curve, its training lengths if several occur, and its values."""
    several = len(table.train_lengths) > 1
    heads = ["curve", *(["trained at"] if several else [])]
    rows: list[list[str | Text]] = []
    for curve in table.curves:
        first = [one_line(curve), *([listed(table.trained[curve])] if several else [])]
        rows.append([*first, *(terminal_cell(table, (curve, length)) for length in table.lengths)])
    return [*heads, *(starred(length, table.train_lengths) for length in table.lengths)], rows


def verdict_rows(table: Table) -> tuple[list[str], list[list["str | Text"]]]:
    """Return (headings, rows): the curve, its usable length, and its verdicts."""
    from rich.text import Text

    def cell(lines: list[str]) -> Text:
        word, *others = lines
        style = {"breaks": "red", "uses": "green"}.get(word.split()[0], "")
        return Text("\n").join([Text(word, style=style), *(Text(line, style="dim") for line in others)])

    lengths, rows = verdict_table.grid(table)
    return ["curve", "usable length", *map(str, lengths)], [
        [one_line(curve), up_to, *map(cell, cells)] for curve, up_to, cells in rows
    ]


def terminal_cell(table: Table, key: tuple[str, int]) -> "Text":
    """Return value, interval and failure on separate lines."""
    from rich.text import Text

    lines = [Text(shown_value(table, key))] if key in table.values else []
    if bounds := interval(table, key):
        low, high = bounds
        if "e" in low and low.split("e")[1] == high.split("e")[-1]:  # 2.9–3.9e+04, to keep columns narrow
            low = low.split("e")[0]
        lines.append(Text(f"{low}–{high}", style="dim"))
    lines += [Text(line, style="red") for line in failure(table, key).split(", ") if line]
    return Text("\n").join(lines) if lines else Text("–", style="dim")


def shown_value(table: Table, key: tuple[str, int]) -> str:
    """Return the formatted value with the mark of its verdict."""
    text = table.measure.write(table.values[key].value)
    mark = verdict_table.MARKS.get(table.words.get(key, ""))
    return f"{text} {mark}" if mark else text


def failure(table: Table, key: tuple[str, int]) -> str:
    return table.cells[key].failure if key in table.cells else ""


def report_markdown(shown: list[Table]) -> str:
    """Return the report in Markdown: the answer, the headline, then every other table under its own heading."""
    headline = shown[0]
    parts = [f"# {headline.measure.title} by evaluation length", escape(answer(headline))]
    explained: set[str] = set()
    for table in shown:
        parts += [*markdown_table(table), *map(escape, unexplained(table, explained))]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(table: Table) -> list[str]:
    """Return the sections of a table: heading, description, values, notes and verdicts."""
    parts = [f"## {escape(heading(table))}", escape(about(table))]
    if table.drawn_only:
        return [*parts, DRAWN]
    several = len(table.train_lengths) > 1
    head = ["curve", *(["trained at"] if several else [])]
    head += [escape(starred(length, table.train_lengths)) for length in table.lengths]
    rows = []
    for curve in table.curves:
        cells = [escape(curve), *([listed(table.trained[curve])] if several else [])]
        rows.append(cells + [markdown_cell(table, (curve, length)) for length in table.lengths])
    parts.append(pipe_table(head, rows))
    if table.notes:
        parts.append("\n".join(f"- {escape(note)}" for note in table.notes))
    if table.verdicts and not too_many(table):
        lengths, found = verdict_table.grid(table)
        lines = [
            [escape(curve), escape(up_to), *("<br>".join(map(escape, cell)) for cell in cells)]
            for curve, up_to, cells in found
        ]
        parts += [f"### {verdict_table.HEADING}", pipe_table(["curve", "usable length", *map(str, lengths)], lines)]
    return parts


def heading(table: Table) -> str:
    """Return the heading: protocol, targets, stride and corpus, which identify a table."""
    name = table.targets_hashes[0][:8]
    parts = [table.protocol, f"targets {name}" if len(table.targets_hashes) == 1 and name else ""]
    parts += [f"stride {table.stride}"] if table.stride is not None else []
    return " · ".join(filter(None, [*parts, table.corpus]))


def markdown_cell(table: Table, key: tuple[str, int]) -> str:
    bounds, missing = interval(table, key), failure(table, key)
    parts = [shown_value(table, key)] if key in table.values else []
    parts += [f"[{bounds[0]}, {bounds[1]}]"] if bounds else []
    parts += [f"({escape(missing)})" if parts else escape(missing)] if missing else []
    return " ".join(parts) or "–"


def pipe_table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(map(markdown_line, [head, ["---"] + ["---:"] * (len(head) - 1), *rows]))
