"""The rows of a group of runs with the labels of their curves, from run folders or from a published rows.csv."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from posexp.errors import Misuse, RunFailed
from posexp.evaluation.rows import Row, read_rows, rows_of_csv
from posexp.runs.labels import curve_labels, run_recipes
from posexp.runs.run import Run, find_runs
from posexp.storage import untrusted


@dataclass(frozen=True)
class Group:
    """The rows of a group. `curve_of` maps names of runs to labels of curves, and `recipe_of` to a key that runs share
    if they differ only in training length and seed. `runs` are the measured run folders, none if the rows are from a
    file.
    """

    rows: list[Row]
    curve_of: dict[str, str]
    recipe_of: dict[str, str]
    runs: list[Run]

    def labelled(self) -> list[Row]:
        """Return the rows with the columns `curve` and `recipe`, from which `read_group` restores the group."""
        return [
            replace(row, curve=self.curve_of.get(row.run), recipe=self.recipe_of.get(row.run) or None)
            for row in self.rows
        ]


def load_group(results: str, group: str, runs: str, say: Callable[[str], None], variants: bool = True) -> Group:
    """Return the rows of the run folders that the glob `runs` names; without `variants` those as in training only."""
    rows: list[Row] = []
    measured: list[Run] = []
    for run in find_runs(results, group, runs):
        try:
            of_run = read_rows(run, say)
        except RunFailed as error:
            say(f"{error}; the run is skipped")
            continue
        if not of_run:
            say(f"{run.name}: {run.status()['status']}, not measured yet, so it is skipped")
        shown = [row for row in of_run if variants or not row.variant]
        rows += shown
        measured += [run] * bool(shown)
    if not rows:
        place = f"{results}/{group}/{runs}"
        raise Misuse(f"no measured run in {place}. First: posexp train +scheme=<name>, then posexp eval --lengths …")
    return Group(rows, curve_labels(measured, say), run_recipes(measured), measured)


def read_group(path: str, say: Callable[[str], None], variants: bool = True) -> Group:
    """Return the rows of a rows.csv. Raises Misuse if it cannot be read or has no rows."""
    try:
        content = untrusted.read_bytes(Path(path).expanduser())
        rows = rows_of_csv(content.decode(), say)
    except (OSError, ValueError) as error:
        raise Misuse(f"rows={path} cannot be read: {getattr(error, 'strerror', '') or error}") from error
    rows = [row for row in rows if variants or not row.variant]
    if not rows:
        raise Misuse(f"rows={path} has no rows: name the rows.csv of a report or a study")
    curve_of = {row.run: row.curve for row in rows if row.curve}
    return Group(rows, curve_of, {row.run: row.recipe or "" for row in rows}, [])
