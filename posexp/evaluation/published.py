"""The runs of a published study, results/studies/<study>, or of a folder of run folders."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.evaluation.group import Group, load_group, read_group
from posexp.runs.labels import curve_labels, run_recipes
from posexp.runs.run import METRICS, Run
from posexp.storage import jsonl, untrusted
from posexp.storage.names import is_name


@dataclass(frozen=True)
class PublishedRun(Run):
    """A run of a study, from its line of runs.jsonl in place of a folder's files."""

    line: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def foreign(self) -> bool:
        return False

    @contextmanager
    def reading_config(self) -> Iterator[str]:
        try:
            yield json.dumps(self.line.get("config"))  # JSON is YAML
        except (ValueError, OmegaConfBaseException, PosexpError) as error:
            why = untrusted.visible(" ".join(str(error).split())[:200])
            raise RunFailed(f"the config of {self.name} in runs.jsonl cannot be read: {why}") from error

    def provenance(self) -> dict[str, Any]:
        found = self.line.get("provenance")
        return found if isinstance(found, dict) else {}

    def history(self, say: Callable[[str], None]) -> list[dict[str, Any]]:
        lines = self.line.get("metrics")
        found = [jsonl.valid_row(jsonl.line_of(row), {}, METRICS) for row in lines] if isinstance(lines, list) else []
        return [row for row in found if row is not None]


def load_entries(folder: Path, say: Callable[[str], None]) -> Group:
    """Return the runs of a folder of run folders, or of rows.csv with runs.jsonl as in results/studies/<study>.

    Labels come from the configurations. Raises Misuse if there are none.
    """
    if not (folder / "rows.csv").is_file():
        return load_group(str(folder.resolve().parent), folder.resolve().name, "*", say, variants=False)
    rows = read_group(str(folder / "rows.csv"), say, variants=False).rows
    runs: list[Run] = []
    try:
        for text in untrusted.read_bytes(folder / "runs.jsonl").splitlines():
            line = untrusted.object_of(text)
            if not isinstance(name := line.get("name"), str) or not is_name(name, most=255):
                raise ValueError(f"{name!r} is not a name of a run")
            runs.append(PublishedRun(folder / name, line))
    except (OSError, ValueError) as error:
        raise Misuse(f"{folder / 'runs.jsonl'} cannot be read: {getattr(error, 'strerror', '') or error}") from error
    return Group(rows, curve_labels(runs, say), run_recipes(runs), runs)


def readable(group: Group) -> list[Run]:
    """Return the runs with a configuration that can be read."""
    return [run for run in group.runs if run.name in group.curve_of and not run.foreign]
