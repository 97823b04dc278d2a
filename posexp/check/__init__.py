"""The posexp check command, which tests the promises of posexp's schemes and the user's own."""

from functools import partial

from posexp.config.commands import CheckCommand
from posexp.config.components import chosen, folders_of
from posexp.config.sections import config_dir
from posexp.errors import RunFailed
from posexp.output.console import progress


def check(command: CheckCommand) -> None:
    """Measure the schemes and print one table for each.

    Raises Misuse if a name is unknown, and RunFailed if a scheme breaks a promise.
    """
    from posexp.output.console import console

    paths = chosen(command.schemes, folders_of("scheme"))
    from posexp.check.table import LEGEND, show
    from posexp.check.verdict import examine
    from posexp.config.components import read_options
    from posexp.schemes import from_config

    screen, broken = console(), []
    bar = progress("check", len(paths), "schemes")
    for name, path in paths.items():
        own = path.parent.resolve() == (config_dir() / "scheme").resolve()
        with bar:
            report = examine(name, partial(from_config, read_options(path)), command.lengths, with_authors=own)
            bar.advance()
        screen.print(show(report, screen.width))
        if report.broken:
            broken.append(name)
    screen.print(LEGEND)
    if broken:
        raise RunFailed(f"{len(broken)} of {len(paths)} schemes break a promise: {', '.join(broken)}")
