"""The check of stored files against the checksums that were written with them, for posexp runs --verify."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posexp.config.sections import DataConfig
from posexp.data.store import DamageError, Store
from posexp.errors import PosexpError, RunFailed
from posexp.output.console import say
from posexp.runs.run import Run
from posexp.storage import atomic, jsonl, untrusted


def verify_runs(runs: list[Run]) -> None:
    """Check the files of every run, and its token store if it is here; log a line for each damaged file."""
    damaged = 0
    stores: set[Path] = set()
    for run in runs:
        lines: list[str] = []
        if not run.foreign:
            run.history(lines.append)
            lines += [*checkpoint_damage(run.folder / "checkpoint"), *store_damage(run, stores)]
        jsonl.read_lines(run.rows, lines.append)
        for line in lines:
            say(line)
        damaged += len(lines)
    if damaged:
        raise RunFailed(f"{damaged} problems in {len(runs)} runs (see above)")
    say(f"{len(runs)} runs and {len(stores)} token stores: all checksums are right")


def store_damage(run: Run, known: set[Path]) -> Iterator[str]:
    """Yield a line for each damaged file of the run's token store, unless `known` has that store; add it to `known`."""
    try:
        cache, key = run.section("data").get("cache"), run.provenance().get("store")
    except PosexpError as error:
        yield str(error)
        return
    places = [str(cache), DataConfig().cache]
    folders = [Path(place).expanduser() / "tokens" / str(key) for place in places]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None or folder in known:
        return
    known.add(folder)
    remedy = "remove the folder to have it built again"
    try:
        yield from (f"token store {folder}: {line}; {remedy}" for line in Store(folder).damage())
    except DamageError as error:
        yield f"token store {folder}: {error}; {remedy}"


def checkpoint_damage(folder: Path) -> Iterator[str]:
    """Yield a line for each checkpoint whose tensors differ from what was saved."""
    for step in steps(folder):
        path = folder / f"step-{step:08d}.safetensors"
        try:
            right = read_about(folder, step)["sha256"] == atomic.sha256(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"checkpoint {path} cannot be checked: {error}"
            continue
        if not right:
            yield f"checkpoint {path} has been changed: its sha256 differs; repeat the run's train command"


def steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in `folder` whose files both exist, newest first."""
    found = []
    for path in folder.glob("step-*.json"):
        number = path.stem.removeprefix("step-")
        if re.fullmatch("[0-9]{8,18}", number) and path.with_suffix(".safetensors").exists():
            found.append(int(number))
    return sorted(found, reverse=True)


def read_about(folder: Path, step: int) -> dict[str, Any]:
    """Load what was written last of a checkpoint, {"step", "sha256"}. Raises OSError or ValueError."""
    about: dict[str, Any] = untrusted.json_of(untrusted.read_bytes(folder / f"step-{step:08d}.json"))
    return about
