"""The tracks of the leaderboard, from configs/leaderboard/<track>.yaml, and the runs that may enter one."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from posexp.config import stored_yaml
from posexp.config.commands import TrainCommand
from posexp.config.hints import knobs_of
from posexp.config.sections import config_dir
from posexp.config.values import default_of, flat, plain_value
from posexp.errors import Misuse, did_you_mean
from posexp.evaluation import contrasts
from posexp.evaluation.group import Group
from posexp.evaluation.published import readable
from posexp.evaluation.tasks import exact_match
from posexp.runs.labels import curve_labels, run_recipes
from posexp.runs.run import Run
from posexp.storage import untrusted
from posexp.storage.names import is_name

SECTIONS = ("model", "data", "train")  # an entry has the track's options there
FACTORS = (2, 4, 8, 16)  # of the training length or size, where entries are evaluated


@dataclass(frozen=True)
class Track:
    """What the entries of a track share, and what ranks them.

    `fixed` has options by dotted key; an option that it does not have and that matches no glob of `vary` keeps its
    default. `protocol` is same_targets, or exact_match for a task. `gate` is in nats per token above the best possible
    loss, or the share of examples that are wrong. `primary` is the length in tokens, or the size, that ranks. The first
    of `studies` has the token store, the targets and the best possible loss of the track. `timed` names a folder of
    results/bench with the training time of each curve. True means the time of the runs, and false that none is shown,
    because they shared their machine with other work.
    """

    name: str
    title: str
    studies: list[str]
    experiment: str
    gate: float
    primary: int
    fixed: dict[str, Any]
    vary: list[str]
    timed: bool | str = True
    protocol: str = contrasts.PROTOCOL

    @property
    def is_task(self) -> bool:
        return self.protocol == exact_match.__name__

    @property
    def length(self) -> int:
        """The training length in tokens, or the largest size in training."""
        return int(self.fixed["data.task_size" if self.is_task else "train.length"])

    @property
    def gap(self) -> str:
        """What the gate bounds, as said after a number."""
        return "of the examples wrong" if self.is_task else "nats above the best possible loss"

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
            if not (isinstance(timed := found[-1].timed, bool) or is_name(str(timed))):
                raise ValueError(f"timed={timed} must be true, false or a folder of results/bench")
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
