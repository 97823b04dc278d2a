"""posexp check: measures what schemes promise, posexp's own and the user's."""

from functools import partial
from pathlib import Path

from posexp.config.commands import CheckCommand
from posexp.config.sections import config_dir
from posexp.errors import Misuse, RunFailed
from posexp.training.log import progress
from posexp.config.explain import did_you_mean


def check(command: CheckCommand) -> None:
    """Prints what each scheme does, one table a scheme.

    Raises Misuse for the name of no scheme, and RunFailed if a scheme breaks a promise.
    """
    from posexp.report.listing import console, scheme_folders

    paths = chosen(command.schemes, scheme_folders())
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
        raise RunFailed(f"{len(broken)} of {len(paths)} schemes break what they promise: {', '.join(broken)}")


def chosen(names: list[str], folders: list[Path]) -> dict[str, Path]:
    """The files of the schemes of these names, or of all; the first folder that has a name decides."""
    there: dict[str, Path] = {}
    for path in sorted((path for folder in folders for path in folder.glob("*.yaml")), key=lambda path: path.stem):
        there.setdefault(path.stem, path)
    for name in names:
        if name not in there:
            raise Misuse(f"no scheme {name!r}{did_you_mean(name, list(there))}; there are {', '.join(there)}")
    return {name: there[name] for name in names or there}
