"""The posexp report command, which loads rows and verdicts of a group and writes its report."""

import json
import math
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from posexp import __version__
from posexp.config.commands import ReportCommand
from posexp.config.fields import check_name
from posexp.config.sections import EvalConfig, Source
from posexp.config.values import plain_value
from posexp.errors import Misuse, RunFailed
from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.group import Group, load_group, read_group
from posexp.evaluation.logged import logged_rows
from posexp.evaluation.rows import Row, rows_to_csv
from posexp.evaluation.verdicts import TOO_FEW
from posexp.output.console import console, say
from posexp.output.text import one_line
from posexp.report import write_report
from posexp.report.change import read_references
from posexp.report.fairness import fairness_of
from posexp.report.metric import METRICS, PPL
from posexp.report.tables import Table, tables
from posexp.runs.logger import Logged, logged_run
from posexp.runs.loggers import Loggers, check_loggers
from posexp.runs.provenance import environment
from posexp.runs.run import Run
from posexp.storage import untrusted

# Provenance of a checkpoint; its other fields describe it.
ORIGIN = {"source", "commit", "sha256", "config_sha256", "tokenizer_sha256", "packages"}
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
    """Return the group of a report of a rows.csv, by default the name of the file's folder with "-rows"."""
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
    cards = []
    for run in found.runs:
        losses, validation = losses_of(run)
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
    config = "".join(f"{key}: {json.dumps(value)}\n" for key, value in about.items() if key not in ORIGIN)
    return config, {key: value for key, value in about.items() if key in ORIGIN}


def subject_of(runs: list[Run]) -> str:
    """Return the decoders' size and text, such as "1.0 M parameters on books", without what runs differ in."""
    sizes, texts = set(), set()
    for run in runs:
        with suppress(RunFailed, KeyError, TypeError, ValueError):
            if not run.foreign:
                sizes.add(f"{int(run.provenance()['parameters']['decoder']) / 1e6:.2g} M parameters")
                texts.add(text_of(run.section("data")))
    equal = (next(iter(found)) for found in (sizes, texts) if len(found) == 1)
    return " on ".join(one_line(untrusted.visible(text))[:60] for text in equal)


def text_of(data: dict[str, Any]) -> str:
    """Return the name of the text of a data section: that of its first file, its dataset, task or track."""
    if data["source"] == Source.stdlib.value:
        return "Python's standard library"
    paths = data.get("paths")
    path = paths[0] if isinstance(paths, list) and paths else paths
    named = data.get("dataset") or data.get("task") or data.get("track")
    return str(named or Path(str(path)).name.split(".")[0] or data["source"])


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
