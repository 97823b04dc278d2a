"""The tracks of the leaderboard, from configs/leaderboard/<track>.yaml, and the runs that may enter one."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from posexp.config import stored_yaml
from posexp.config.commands import TrainCommand
from posexp.config.hints import knobs_of
from posexp.config.sections import config_dir
from posexp.config.values import default_of, flat, plain_value
from posexp.errors import Misuse, PosexpError, RunFailed, did_you_mean
from posexp.evaluation.group import Group, load_group, read_group
from posexp.runs.labels import curve_labels, run_recipes
from posexp.runs.run import METRICS, Run
from posexp.storage import jsonl, untrusted
from posexp.storage.names import is_name

SECTIONS = ("model", "data", "train")  # an entry has the track's options there
FACTORS = (2, 4, 8, 16)  # of the training length, where entries are evaluated


@dataclass(frozen=True)
class Track:
    """What the entries of a track share, and what ranks them.

    `fixed` has options by dotted key; an option that it does not have and that matches no glob of `vary` keeps its
    default. `gate` is in nats per token above the best possible loss. `primary` is the length in tokens that ranks. The
    first of `studies` has the token store, the targets and the best possible loss of the track. Without `timed` no
    training time is shown, because the runs shared their machine with other work.
    """

    name: str
    title: str
    studies: list[str]
    experiment: str
    gate: float
    primary: int
    fixed: dict[str, Any]
    vary: list[str]
    timed: bool = True

    @property
    def length(self) -> int:
        """The training length, in tokens."""
        return int(self.fixed["train.length"])

    @property
    def lengths(self) -> list[int]:
        return [self.length * factor for factor in FACTORS]


def read_tracks(name: str | None = None) -> list[Track]:
    """Return the tracks, or the one called `name`. Raises Misuse for an unknown name or a file that is not a track."""
    paths = {path.stem: path for path in sorted((config_dir() / "leaderboard").glob("*.yaml"))}
    if name is not None and name not in paths:
        raise Misuse(f"no track {name!r}{did_you_mean(name, list(paths))}; there are {', '.join(paths)}")
    found = []
    for path in paths.values() if name is None else [paths[name]]:
        try:
            values = stored_yaml.yaml_of(untrusted.read_bytes(path))
            found.append(Track(path.stem, **values | {"fixed": flat(values["fixed"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Misuse(f"{path} is not a track: {error}") from error
    return found


def differing(track: Track, config: TrainCommand) -> list[str]:
    """Return the options of a run that are not those of the track."""
    values = flat({name: plain_value(getattr(config, name)) for name in SECTIONS})
    found = [] if config.parent is None and config.transform is None else ["it continues the training of another run"]
    for knob in knobs_of(TrainCommand):
        varies = any(fnmatchcase(knob.key, glob) for glob in track.vary)
        if knob.key in values and knob.field.metadata["identity"] and not varies:
            wanted = track.fixed.get(knob.key, plain_value(default_of(knob.field)))
            if values[knob.key] != wanted:
                found.append(f"{knob.key}={values[knob.key]} must be {wanted}")
    return found


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


def entrants(track: Track, groups: list[Group], say: Callable[[str], None]) -> Group:
    """Return the runs of several groups that have the track's options. Of runs of equal names the first counts."""
    found: dict[str, Run] = {}
    rows = []
    for group in groups:
        new = {run.name for run in readable(group) if not differing(track, run.config())} - found.keys()
        found |= {run.name: run for run in group.runs if run.name in new}
        rows += [row for row in group.rows if row.run in new]
    runs = list(found.values())
    return Group(rows, curve_labels(runs, say), run_recipes(runs), runs)
