"""The posexp report command, which loads rows and verdicts of a group and writes its report."""

import json
from pathlib import Path
from typing import Any

from posexp import __version__
from posexp.config.commands import ReportCommand
from posexp.errors import Misuse, RunFailed
from posexp.evaluation import losses
from posexp.evaluation.losses import Losses
from posexp.evaluation.rows import Row, read_rows
from posexp.evaluation.verdicts import LossesOf, Pairs
from posexp.output.console import console, say
from posexp.report import write_report
from posexp.report.metric import MEASURES, PPL
from posexp.report.tables import Table
from posexp.runs.labels import curve_labels
from posexp.runs.provenance import environment
from posexp.runs.run import Run, find_runs
from posexp.storage import untrusted

ORIGIN = (
    "source",
    "commit",
    "sha256",
    "config_sha256",
    "tokenizer_sha256",
    "packages",
)  # provenance of a checkpoint; its other fields describe it


def report(command: ReportCommand) -> None:
    """Write the report into <results>/<group>/<folder>/. Raises Misuse if no run of the group has eval rows."""
    runs = find_runs(command.results, command.group, command.runs)
    rows = []
    for run in runs:
        try:
            of_run = read_rows(run, say)
        except RunFailed as error:
            say(f"{error}; the run is skipped")
            continue
        if not of_run:
            say(f"{run.name}: {run.status()['status']}, not measured yet, so it is skipped")
        rows += [row for row in of_run if command.variants or not row.variant]
    if not rows:
        place = f"{command.results}/{command.group}/{command.runs}"
        raise Misuse(f"no measured run in {place}. First: posexp train +scheme=<name>, then posexp eval --lengths …")
    measured = [run for run in runs if any(row.run == run.name for row in rows)]
    curve_of = curve_labels(measured, say)
    missing: dict[str, None] = {}
    notes: list[str] = []
    write_report(
        rows,
        curve_of,
        Path(command.results).expanduser() / command.group / command.folder,
        console(),
        measure=MEASURES[command.measure.value] if command.measure else PPL,
        pairs=Pairs(rows, curve_of, kept_losses(measured, missing)),
        say=notes.append,
        all_sets=command.all,
        page=(lambda shown: page_of(command, rows, shown, measured, curve_of)) if command.html else None,
    )
    for note in notes:
        if not any(run in note for run in missing):
            say(note)
    if missing:
        who = next(iter(missing)) + (" and others" if len(missing) > 1 else "")
        say(f"{who}: no token losses are stored, so there is no verdict; repeat the eval command to store them")


def kept_losses(runs: list[Run], missing: dict[str, None]) -> LossesOf:
    """Return a function that reads the losses of a row and adds runs without stored losses to `missing`."""
    folder_of = {run.name: run.folder for run in runs}

    def losses_of(row: Row) -> Losses | None:
        kept = losses.read_losses(folder_of[row.run], row) if row.run in folder_of else None
        if kept is None:
            missing[row.run] = None
        return kept

    return losses_of


def page_of(
    command: ReportCommand,
    rows: list[Row],
    shown: list[Table],
    runs: list[Run],
    curve_of: dict[str, str],
) -> str:
    """Return the report as HTML, with the provenance of the runs and of the report."""
    from hydra.core.hydra_config import HydraConfig

    from posexp.report.page import RunCard, page

    seed_of = {row.run: row.seed for row in rows}
    cards = [RunCard(run.name, curve_of.get(run.name, run.name), seed_of[run.name], *described(run)) for run in runs]
    code = environment()
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    made = {
        "version": __version__,
        "commit": code["commit"] and code["commit"] + (" with changes" if code["dirty"] else ""),
        "command": " ".join(["posexp report", *words]),
    }
    return page(command.group, shown, cards, made)


def described(run: Run) -> tuple[str, dict[str, Any]]:
    """Return (configuration as YAML, provenance) of a run. For an external checkpoint the first is its description.

    Log and skip what cannot be read.
    """
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
