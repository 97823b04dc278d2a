"""The copy of a report in loggers: rows and verdicts of each run, and the pictures of the group."""

from functools import partial
from pathlib import Path

from posexp.config.commands import ReportCommand
from posexp.config.sections import EvalConfig
from posexp.config.values import plain_value
from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.group import Group
from posexp.evaluation.logged import logged_rows
from posexp.evaluation.verdicts import TOO_FEW
from posexp.report.tables import Table, tables
from posexp.runs.logger import Logged, logged_run
from posexp.runs.loggers import Loggers


def log_report(command: ReportCommand, found: Group, pairs: Pairs, paths: list[Path]) -> None:
    """Log each run's evaluation again, now with the verdicts of its curve, which need a group, and the pictures."""
    judged = [table for table in tables(found.rows, found.curve_of, verdicts=pairs.verdicts()) if table.verdicts]
    for run in found.runs:
        rows = [row for row in found.rows if row.run == run.name]
        summary = verdicts_of(judged[0], found.curve_of.get(run.name, run.name)) if judged else {}
        evaluation = logged_rows(rows, EvalConfig() if run.foreign else run.config().eval, summary)
        with Loggers(command.loggers, command.wandb, partial(logged_run, run, "eval")) as loggers:
            loggers.evaluation(evaluation)
    folder = Path(command.results).expanduser() / command.group / command.folder
    about = Logged(folder, command.folder, "report", command.group, command.group, plain_value(command))
    with Loggers(command.loggers, command.wandb, lambda: about) as loggers:
        for path in paths:
            if path.suffix == ".png":
                loggers.figure(path)


def verdicts_of(table: Table, curve: str) -> dict[str, float | str]:
    """Return the summary of a curve: verdict@2048 and so on, and usable_length; nothing with too few seeds."""
    found: dict[str, float | str] = {}
    for (name, length), word in table.words.items():
        if name == curve and word != TOO_FEW:
            found[f"verdict@{length}"] = word
    for one in table.usable:
        if one.curve == curve:
            found["usable_length"] = one.safe
    return found
