"""The end of a command's output: the figures of the runs, their folder, and the commands that may follow."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posexp.config.commands import EvalCommand, OfGroup, ReportCommand, TrainCommand
from posexp.errors import RunFailed

if TYPE_CHECKING:
    from posexp.evaluation.rows import Row
    from posexp.report.tables import Table
    from posexp.runs.run import Run

MAX_CURVES, MAX_CHANGES = 12, 4  # in the table, and with a second line each for the change
MAX_WIDTH = 50  # of a command beside its meaning
SEEDS = 3  # that a verdict needs

Next = tuple[str, str]  # a command, and what it gives


def end_command(config: Any, result: Any, words: list[str]) -> None:
    """Print the end of a command that returned `result`; `words` are what was typed after its name."""
    match config:
        case TrainCommand():
            end_training([result], words)
        case EvalCommand():
            end_evaluation(config, result if isinstance(result, list) else [result])
        case ReportCommand():
            end_report(config, result.rows, result.curve_of)


def end_training(runs: "list[Run]", words: list[str]) -> None:
    """Print the perplexities of the runs that one command has trained, in the terms of posexp report."""
    from posexp.output.console import console
    from posexp.report.tables import tables

    rows, curve_of = rows_of(runs)
    if rows:
        where, screen, headline = place_of(runs[0]), console(), tables(rows, curve_of)[0]
        if not headline.drawn_only and len(headline.curves) <= MAX_CURVES:
            figures(headline).show(screen)
        measured = len({row.run for row in rows})
        count = [] if len(runs) == 1 else [f"{measured} of {len(runs)} runs measured, in {runs[0].folder.parent}"]
        following = [(f"posexp report{where} --html", "the answer in words, pictures, and a page for a browser")]
        following += [(f"posexp runs{where}", "why the others are not measured")] if measured < len(runs) else []
        following += [(f"posexp eval{where} --lengths …", "other lengths, protocols, windows and transforms")]
        following += pairs(rows, curve_of, where)
        if fewest_seeds(rows, curve_of) < SEEDS and not any(word.startswith("from=") for word in words):
            again = [word for word in words if word not in ("-m", "--multirun") and not word.startswith("seed=")]
            seeds = ",".join(map(str, range(SEEDS)))
            command = f"{shlex.join(['posexp', 'train', '-m', *again])} seed={seeds}"
            following.append((command, "as many seeds as a verdict needs"))
        show(count or [str(runs[0].folder)], following)


def end_evaluation(command: EvalCommand, runs: "list[Run]") -> None:
    rows, curve_of = rows_of(runs)
    where = place_of(runs[0])
    what = str(runs[0].rows) if len(runs) == 1 else f"{len(runs)} runs in {runs[0].folder.parent}, rows.jsonl of each"
    show([what], [(f"posexp report{where}", "answer, table and picture"), *pairs(rows, curve_of, where)])


def end_report(command: ReportCommand, rows: "list[Row]", curve_of: dict[str, str]) -> None:
    where = typed(command, "results", "group", "rows")
    page = [] if command.html else [(f"posexp report{where} --html", "all of it in one page for a browser")]
    show([], [*page, *pairs(rows, curve_of, where)])


def rows_of(runs: "list[Run]") -> "tuple[list[Row], dict[str, str]]":
    """Return the rows of the runs as trained, and the labels of their curves. A run that cannot be read has none."""
    from posexp.evaluation.rows import read_rows
    from posexp.runs.labels import curve_labels

    def silently(line: str) -> None:
        pass

    rows: list[Row] = []
    for run in runs:
        with suppress(RunFailed):
            rows += [row for row in read_rows(run, silently) if not row.variant]
    names = {row.run for row in rows}
    return rows, curve_labels([run for run in runs if run.name in names], silently)


def figures(table: "Table") -> Any:
    """Return a table of the curves: the measure at each length, and its change against the training length."""
    from rich.text import Text

    from posexp.output.grid import Grid
    from posexp.output.text import one_line
    from posexp.report.metric import CHANGE
    from posexp.report.table import failure, starred

    def cell(curve: str, length: int) -> Text:
        value, inner = table.values.get((curve, length)), table.cells.get((curve, length))
        if value is None or inner is None:
            return Text(failure(table, (curve, length)) or "–", style="dim")
        text, change = Text(table.measure.write(value.value)), CHANGE.of(inner)
        if change and length not in table.trained[curve] and len(table.curves) <= MAX_CHANGES:
            text.append(f"\n{CHANGE.write(change.value)} %", style="dim")
        return text

    lengths = [starred(length, table.train_lengths) for length in table.lengths]
    rows: list[list[str | Text]] = [
        [one_line(curve), *(cell(curve, length) for length in table.lengths)] for curve in table.curves
    ]
    title = f"{table.measure.axis}, {table.protocol} (* training length)"
    return Grid(["curve", *lengths], rows, title=title)


def pairs(rows: "list[Row]", curve_of: dict[str, str], where: str) -> Iterator[Next]:
    """Yield the commands that compare the curves, if there are several."""
    curves = [shlex.quote(curve) for curve in dict.fromkeys(curve_of.get(row.run, row.run) for row in rows)]
    if len(curves) > 1:
        others = curves[1:] if len(curves) <= MAX_CHANGES else ["'*'"]
        yield f"posexp compare {' '.join([curves[0], *others])}{where}", "which is better, paired, with p"
        if fewest_seeds(rows, curve_of) > 1:
            yield f"posexp power {curves[0]} {curves[1]}{where}", "how many seeds show a difference of 1 %"


def fewest_seeds(rows: "list[Row]", curve_of: dict[str, str]) -> int:
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(curve_of.get(row.run, row.run), set()).add(row.seed)
    return min(map(len, seeds.values()))


def place_of(run: "Run") -> str:
    """Return the words that name the group of a run, as typed() does."""
    group = run.folder.parent
    return typed(OfGroup(str(group.parent), group.name), "results", "group")


def typed(config: OfGroup, *names: str) -> str:
    """Return the options of `names` that are not the default, as they are typed, each after a space."""
    default, words = type(config)(), []
    for name in names:
        value = getattr(config, name)
        if value != getattr(default, name) and not (name == "results" and Path(value) == Path(default.results)):
            words.append(f" {name}={shlex.quote(value)}")
    return "".join(words)


def show(lines: list[str], following: list[Next]) -> None:
    """Print lines, then the commands that may follow, in two columns."""
    from rich.text import Text

    from posexp.output.console import console

    screen, width = console(), max((len(command) for command, _ in following if len(command) <= MAX_WIDTH), default=0)
    for line in lines:
        screen.print(Text(line), soft_wrap=True)
    for index, (command, gives) in enumerate(following):
        head = "next: " if index == 0 else "      "
        screen.print(Text.assemble(head, (f"{command:<{width}}", "bold"), (f"  {gives}", "dim")), soft_wrap=True)
