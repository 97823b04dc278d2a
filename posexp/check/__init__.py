"""The posexp check command, which tests the promises of posexp's schemes and the user's own."""

from functools import partial

from posexp.config.commands import CheckCommand
from posexp.config.components import chosen, folders_of, read_options
from posexp.config.sections import config_dir
from posexp.errors import RunFailed
from posexp.output.console import console, progress

LEGEND = (
    "error, shift, prefix: largest change of a log attention weight, or of the output if the scheme defines its own "
    "attention. error: against float64. shift: when all positions move. prefix: in the first half of the input, by the "
    "second half. angle: error of rotated queries and keys against float64, in radians. "
    "rounded: when positions, distances and angles are bfloat16 and all else is float32. -: does not apply. Inputs of "
    "more than 16,777,216 tokens are not tried."
)


def check(command: CheckCommand) -> None:
    """Measure the schemes and print a table for each. Raises RunFailed if a scheme breaks a promise."""
    paths = chosen(command.schemes, folders_of("scheme"))
    from rich.text import Text

    from posexp.check.verdict import examine, name_of, short
    from posexp.output.grid import Grid
    from posexp.schemes import from_config

    screen, broken = console(), []
    bar = progress("check", len(paths), "schemes")
    for name, path in paths.items():
        bar.at(f"check {name}")
        own = path.parent.resolve() == (config_dir() / "scheme").resolve()
        with bar:
            report = examine(name, partial(from_config, read_options(path)), command.lengths, with_authors=own)
            bar.advance()
        if report.rows:
            rows = [[name_of(row.dtype), f"{row.length:,}", *map(short, row.figures.values())] for row in report.rows]
            heads = ["type", "tokens", *report.rows[0].figures]
            Grid(heads, rows, names=2, title=f"{name}: {report.fingerprint}").show(screen)
        mark, style = ("✗", "bold red") if report.broken else ("✓", "bold green")
        lines = report.broken or report.kept
        screen.print(Text.assemble((f"{mark} {name} ", style), "; ".join(lines.values()), "\n"))
        if report.broken:
            broken.append(name)
    screen.print(LEGEND)
    if broken:
        raise RunFailed(f"{len(broken)} of {len(paths)} schemes break a promise: {', '.join(broken)}")
