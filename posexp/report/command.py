"""The posexp report command, which loads rows and verdicts of a group and writes its report."""

import json
import math
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

from posexp import __version__
from posexp.config.commands import ReportCommand
from posexp.config.fields import check_name
from posexp.errors import Misuse, RunFailed
from posexp.evaluation.contrasts import PROTOCOL, Pairs
from posexp.evaluation.group import Group, load_group, read_group
from posexp.evaluation.rows import Row, rows_to_csv
from posexp.output.console import console, say
from posexp.report import write_report
from posexp.report.change import read_references
from posexp.report.fairness import fairness_of
from posexp.report.logged import log_report
from posexp.report.metric import METRICS, PPL
from posexp.report.subject import subject_of
from posexp.report.tables import Table
from posexp.runs.loggers import check_loggers
from posexp.runs.provenance import environment
from posexp.runs.run import Run
from posexp.storage import untrusted

ORIGIN = (
    "source",
    "commit",
    "sha256",
    "config_sha256",
    "tokenizer_sha256",
    "packages",
)  # provenance of a checkpoint; its other fields describe it


Losses = tuple[tuple[int, float], ...]  # tokens of training, nats per token


def report(command: ReportCommand) -> Group:
    """Write the report into <results>/<group>/<folder>/, and return what it reports. Raises Misuse without rows."""
    check_loggers(command.loggers)
    if command.rows:
        command = replace(command, group=group_of(command, command.rows))
        found = read_group(str(command.rows), say, command.variants)
    else:
        found = load_group(command.results, command.group, command.runs, say, command.variants)
    rows = found.labelled()
    if command.oracle is not None:
        check_oracle(command.oracle, rows, found.curve_of)
    pairs = Pairs(rows, found.curve_of, found.recipe_of, command.oracle)
    paths = write_report(
        rows,
        found.curve_of,
        Path(command.results).expanduser() / command.group / command.folder,
        console(),
        measure=METRICS[command.measure.value] if command.measure else PPL,
        pairs=pairs,
        say=say,
        fairness=fairness_of(rows, found.runs, found.curve_of, say),
        all_sets=command.all,
        page=(lambda shown: page_of(command, found, shown)) if command.html else None,
        subject=subject_of(found.runs),
        references=read_references(Path(command.results).expanduser() / command.group / "reference.csv"),
    )
    if command.loggers:
        log_report(command, found, pairs, paths)
    return found


def group_of(command: ReportCommand, path: str) -> str:
    """Return the group of a report of a rows.csv: as set, or by default the name of the file's folder with "-rows".

    A study may have the name of a group, whose own report would be overwritten. Raises Misuse if the report would
    replace the file itself.
    """
    source = Path(path).expanduser().resolve()
    group = command.group if command.group != ReportCommand().group else f"{source.parent.name}-rows"
    check_name("group", group)
    target = Path(command.results).expanduser() / group / command.folder
    if source.parent == target.resolve():
        raise Misuse(f"the report would replace rows={path}: choose another folder=<name>")
    return group


def check_oracle(oracle: str, rows: list[Row], curve_of: dict[str, str]) -> None:
    """Raise Misuse unless the glob names curves, at most one of each training length."""
    named = {(row.train_length, curve_of.get(row.run, row.run)) for row in rows}
    found = sorted((length, curve) for length, curve in named if fnmatchcase(curve, oracle))
    if not found:
        raise Misuse(f"oracle={oracle} names no curve: there are {', '.join(sorted({curve for _, curve in named}))}")
    for (length, curve), (other_length, other) in pairwise(found):
        if length == other_length:
            raise Misuse(f"oracle={oracle} names two curves trained at {length} tokens, {curve} and {other}: name one")


def page_of(command: ReportCommand, found: Group, shown: list[Table]) -> str:
    """Return the report as HTML, with the provenance of the runs and of the report."""
    from hydra.core.hydra_config import HydraConfig

    from posexp.report.page import RunCard, page

    seed_of = {row.run: row.seed for row in found.rows}
    own = [row for row in found.rows if row.protocol == PROTOCOL and not row.control and not row.variant]
    trained = {row.run: row.nll for row in own if row.length == row.train_length}
    cards = []
    for run in found.runs:
        losses, validation = losses_of(run)
        if losses and not validation and (nll := trained.get(run.name)) is not None:  # trained by an older version
            validation = ((losses[-1][0], nll),)
        curve = found.curve_of.get(run.name, run.name)
        cards.append(RunCard(run.name, curve, seed_of[run.name], *described(run), losses, validation))
    code = environment()
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    made = {
        "version": __version__,
        "commit": code["commit"] and code["commit"] + (" with changes" if code["dirty"] else ""),
        "command": " ".join(["posexp report", *words]),
    }
    return page(command.group, shown, cards, made, rows_to_csv(found.labelled()))


def losses_of(run: Run) -> tuple[Losses, Losses]:
    """Return (tokens, loss) of the training and the validation rows of a run. Log and skip a damaged file."""
    try:
        rows = [] if run.foreign else run.history(say)
    except RunFailed as error:
        say(untrusted.visible(str(error)))
        return (), ()
    training, validation = (
        tuple((row["tokens"], row[name]) for row in rows if row.get("tokens") and is_finite(row.get(name)))
        for name in ("loss", "valid_loss")
    )
    return training, validation


def is_finite(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)


def described(run: Run) -> tuple[str, dict[str, Any]]:
    """Return (configuration as YAML or description of a checkpoint, provenance) of a run. Log what is unreadable."""
    config = ""
    try:
        if not run.foreign:
            config = untrusted.read_bytes(run.folder / "config.yaml").decode()
            return config, run.provenance()
        about = run.about()
    except (RunFailed, OSError, ValueError) as error:
        say(untrusted.visible(str(error)))
        return config, {}
    origin = {key: about.pop(key) for key in ORIGIN if key in about}
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in about.items()), origin
