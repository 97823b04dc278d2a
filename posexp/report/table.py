"""The tables of a report, for the terminal, Markdown and LaTeX."""

from typing import TYPE_CHECKING

from posexp.output.grid import Cell, Grid
from posexp.output.text import escape, one_line
from posexp.report import verdict_table
from posexp.report.answer import answer
from posexp.report.metric import EXACT_MATCH, USABLE_EXACT_MATCH
from posexp.report.tables import MAX_LENGTHS, OWN_MEASURE, Table, facts, listed, number_range

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


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
    return f"trained up to size {lengths}" if table.protocol in OWN_MEASURE else f"trained at {lengths} tokens"


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
    if measure is EXACT_MATCH:
        found.append(
            f"The usable size is the largest up to which every size has an exact match of {USABLE_EXACT_MATCH} % or "
            "more, the mean over seeds; + marks that all have, – that none has."
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
    """Print the answer, the headline with its verdicts, and one line for each other table, or `all_sets` in full."""
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
            console.print(Text(f"{table.protocol} · {table_summary(table)}"))


def print_table(table: Table, console: "Console") -> None:
    from rich.text import Text

    console.print(Text.assemble((table.protocol, "bold"), f" · {about(table)}"))
    if table.drawn_only:
        console.print(Text(DRAWN, style="dim"))
        return
    values(table).show(console)
    for note in table.notes:
        console.print(Text(note, style="red"))
    if table.verdicts and not too_many(table):
        verdicts(table).show(console)


def table_summary(table: Table) -> str:
    """Return the range of lengths, the facts and the range of values of a table."""
    values = [value.value for value in table.values.values()]
    write = table.measure.write
    found = f"{table.measure.axis} {write(min(values))} to {write(max(values))}" if values else "no values"
    return f"{number_range((min(table.lengths), max(table.lengths)))} · {facts(table)} · {found}"


def too_many(table: Table) -> bool:
    """Return whether the verdicts have too many lengths for a table."""
    return len({verdict.place.length for verdict in table.verdicts}) > MAX_LENGTHS


def values(table: Table, for_paper: bool = False) -> Grid:
    """Return the curves, their training lengths if several occur, and their values, the best bold `for_paper`."""
    several = len(table.train_lengths) > 1
    heads = ["curve", *(["trained at"] if several else [])]
    sized = table.measure is EXACT_MATCH and not for_paper
    rows: list[list[Cell]] = []
    for curve in table.curves:
        first = [one_line(curve), *([listed(table.trained[curve])] if several else [])]
        last = [table.shown_size(curve)] if sized else []
        rows.append([*first, *(cell(table, (curve, length), for_paper) for length in table.lengths), *last])
    lengths = [starred(length, table.train_lengths) for length in table.lengths]
    return Grid([*heads, *lengths, *["usable size"] * sized], rows, names=len(heads))


def cell(table: Table, key: tuple[str, int], for_paper: bool) -> "Text":
    """Return value, interval and failure on separate lines."""
    from rich.text import Text

    lines = []
    if key in table.values:
        text = table.measure.write(table.values[key].value)
        best = for_paper and text == best_of(table, key[1])
        lines.append(Text(text if for_paper else shown_value(table, key), style="bold" if best else ""))
    if bounds := interval(table, key):
        lines.append(Text(f"[{bounds[0]}, {bounds[1]}]", style="dim"))
    lines += [Text(line, style="red") for line in failure(table, key).split(", ") if line]
    return Text("\n", style=lines[0].style).join(lines) if lines else Text("–", style="dim")


def shown_value(table: Table, key: tuple[str, int]) -> str:
    """Return the formatted value with the mark of its verdict."""
    text, mark = table.measure.write(table.values[key].value), verdict_table.MARKS.get(table.words.get(key, ""))
    return f"{text} {mark}" if mark else text


def best_of(table: Table, length: int) -> str | None:
    """Return the best value of a column as formatted, so that equal text counts as a tie."""
    found = [table.values[curve, length].value for curve in table.curves if (curve, length) in table.values]
    if not found:
        return None
    return table.measure.write(max(found) if table.measure.high_is_good else min(found))


def verdicts(table: Table) -> Grid:
    """Return the curves, their usable lengths and their verdicts."""
    from rich.text import Text

    def styled(cell: tuple[str, list[str]]) -> Text:
        word, (first, *others) = cell
        style = "red" if word in verdict_table.HARMED else "green" if word == "uses" else ""
        return Text("\n").join([Text(first, style=style), *(Text(line, style="dim") for line in others)])

    lengths, rows = verdict_table.grid(table)
    return Grid(
        ["curve", "usable length", *map(str, lengths)],
        [[one_line(curve), up_to, *map(styled, cells)] for curve, up_to, cells in rows],
        names=2,
        title=verdict_table.HEADING,
    )


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
    parts.append(values(table).markdown())
    if table.notes:
        parts.append("\n".join(f"- {escape(note)}" for note in table.notes))
    if table.verdicts and not too_many(table):
        parts += [f"### {verdict_table.HEADING}", verdicts(table).markdown()]
    return parts


def heading(table: Table) -> str:
    """Return the heading: protocol, targets, stride and corpus, which identify a table."""
    name = table.targets_hashes[0][:8]
    parts = [table.protocol, f"targets {name}" if len(table.targets_hashes) == 1 and name else ""]
    parts += [f"stride {table.stride}"] if table.stride is not None else []
    return " · ".join(filter(None, [*parts, table.corpus]))


def report_latex(shown: list[Table]) -> str:
    """Return a file for \\input. The document's preamble needs \\usepackage{booktabs}."""
    found = ["% \\usepackage{booktabs}"]
    for table in shown:
        if not table.drawn_only:
            name = "-".join(filter(None, [table.protocol, str(table.stride or ""), table.targets_hashes[0][:8]]))
            found.append(values(table, for_paper=True).latex(caption(table), f"tab:{name}"))
    return "\n\n".join(found) + "\n"


def caption(table: Table) -> str:
    best = "highest" if table.measure.high_is_good else "lowest"
    parts = [f"{table.title}: {table.measure.axis}, the {best} of each length bold."]
    if any(value.low is not None for value in table.values.values()):
        parts.append(
            f"In brackets: the range of the seeds, or the 95 % interval over {table.measure.over} if there is one seed."
        )
    facts_of = f"{facts(table)} · {trained_at(table)}"
    return " ".join([*parts, f"{facts_of[:1].upper()}{facts_of[1:]} (*)."])
