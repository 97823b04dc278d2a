"""Continued training: the configuration that a run takes from its parent.

A parent's folder is untrusted data, as any run's. Where it names code from outside posexp, `trust=true` is needed, and
where and how results are stored is never read from it, except the name of the group.
"""

import re
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from posexp.config.commands import TrainCommand
from posexp.config.components import is_own, targets
from posexp.config.compose import CONTINUED
from posexp.config.digest import digest, identity
from posexp.config.overrides import NO_SCHEME
from posexp.config.sections import Parent
from posexp.config.values import plain_value, typed_value
from posexp.errors import Misuse, RunFailed
from posexp.runs.run import Run, run_folders
from posexp.runs.verify import read_about

TENTH = 10  # the parent's budget over that of its child, by default
OF_PARENT = {"seed", "group", "eval"}  # options without identity that a child takes from its parent


def inherit(values: dict[str, Any], overrides: list[str]) -> TrainCommand:
    """Return the configuration of a child: its parent's, with the options that are typed.

    `values` are those that Hydra composed, with `parent` as typed. A child that has begun needs no parent: its own
    configuration is then taken. Raises Misuse if there is no such parent, if it is not finished, or if its weights
    cannot fit; RunFailed if its files are damaged.
    """
    typed = typed_keys(overrides)
    run = find_parent(str(values["parent"]), values["results"])
    if run is None:
        return begun_child(values, typed)
    if run.foreign:
        raise Misuse(f"from={run.name} is a checkpoint from elsewhere: only runs that posexp trained can be continued")
    parent = run.config()
    if code := outside(parent, values["trust"]):
        raise Misuse(f"from={run.name} names code from outside posexp, {code!r}: set trust=true to run it")
    merged = laid_over(plain_value(parent), values, typed)
    for key, value in plain_value(parent.model).items():
        if key != "dropout" and merged["model"][key] != value:
            raise Misuse(f"model.{key}={merged['model'][key]}: the weights of {run.name} are of model.{key}={value}")
    if "scheme" in typed and "transform" not in typed:
        merged["transform"] = None  # it changed the parent's scheme
    if "train.tokens" not in typed:
        merged["train"]["tokens"] = max(1, parent.train.tokens // TENTH)
    if "label" not in typed:
        new = [] if values["label"] == CONTINUED else [values["label"]]
        merged["label"] = "-".join([parent.label, "to", str(merged["train"]["length"]), *new])
    merged["parent"] = plain_value(described(run, parent))
    if any(key.partition(".")[0] == "data" for key in typed - {"data.cache", "data.store"}):
        merged["parent"]["store"] = ""  # other text than the parent's
    return checked(merged)


def checked(merged: dict[str, Any]) -> TrainCommand:
    try:
        config = typed_value(TrainCommand, merged)
    except (TypeError, ValueError) as error:
        raise Misuse(f"from=: the options do not fit the parent's configuration {error}".strip()) from error
    assert isinstance(config, TrainCommand)
    return config


def typed_keys(overrides: list[str]) -> set[str]:
    """Return the dotted keys of overrides: `scheme.inner` of +scheme@scheme.inner=rope."""
    words = (word for word in overrides if word != NO_SCHEME)
    keys = (re.sub(r"^[+~]*", "", word).partition("=")[0].rpartition("@")[2] for word in words)
    return {key for key in keys if not key.startswith("hydra") and key != "parent"}


def laid_over(below: dict[str, Any], values: dict[str, Any], typed: set[str]) -> dict[str, Any]:
    """Return the parent's values with the typed ones over them; those of where and how to store are from `values`."""
    merged = deepcopy(below)
    for keys in neutral(TrainCommand):
        put(merged, keys, values)
    for key in sorted(typed):  # a section before its options
        put(merged, key.split("."), values)
    return merged


def neutral(section: Any) -> list[list[str]]:
    """Return the keys of the options of a command that do not change its result, apart from those of the parent."""
    found = [[option.name] for option in fields(section) if not option.metadata["identity"]]
    found = [keys for keys in found if keys[0] not in OF_PARENT]
    for option in fields(section):
        if option.metadata["identity"] and isinstance(option.default_factory, type):  # a section
            found += [[option.name, *keys] for keys in neutral(option.default_factory)]
    return found


def put(merged: dict[str, Any], keys: list[str], values: dict[str, Any]) -> None:
    """Set the nested value of `keys` in `merged` to that in `values`."""
    for key in keys[:-1]:
        if not isinstance(merged.get(key), dict):
            merged[key] = {}
        merged, values = merged[key], values[key]
    merged[keys[-1]] = values[keys[-1]]


def find_parent(text: str, results: str) -> Run | None:
    """Return the run of a folder, a name or a glob; None if there is none. Raises Misuse for several."""
    path = Path(text).expanduser()
    place, pattern = (path.parent, path.name) if "/" in text else (Path(results), f"*/{text}")
    found = run_folders(place, pattern)
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found[:3])
        raise Misuse(f"from={text} is {len(found)} runs, {names} …: name one, or several by -m from=<run>,<run>")
    return Run(found[0]) if found else None


def described(run: Run, config: TrainCommand) -> Parent:
    """Return what a child stores of its parent. Raises Misuse unless it is finished, RunFailed for damaged files."""
    if (status := run.status()["status"]) != "done":
        raise Misuse(f"from={run.name} is not finished ({status}): repeat its train command first")
    about = run.provenance()
    try:
        weights = str(read_about(run.folder / "checkpoint", config.train.steps)["sha256"])[:12]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFailed(f"from={run.name}: its final checkpoint is damaged or missing ({error})") from error
    transformed = config.transform is not None and config.parent is not None
    return Parent(
        run=run.name,
        weights=weights,
        digest=digest(config),
        length=config.train.length,
        base_length=config.parent.base_length if transformed else config.train.length,
        tokens=config.train.tokens,
        store=str(about.get("store")),
        tokenizer=str(about.get("tokenizer_sha256")),
        folder=str(run.folder),
        parent=config.parent,
    )


def begun_child(values: dict[str, Any], typed: set[str]) -> TrainCommand:
    """Return the stored configuration of the one child of a removed parent that has the options that are typed.

    Raises Misuse unless there is one.
    """
    parent = Path(str(values["parent"]))
    group = values["group"] if "group" in typed else parent.parent.name or "*"
    found: dict[str, TrainCommand] = {}
    for folder in run_folders(Path(values["results"]), f"{group}/*"):
        with suppress(RunFailed, Misuse):
            own = Run(folder).config()
            if own.parent is None or not fnmatch(own.parent.run, parent.name) or outside(own, values["trust"]):
                continue
            again = checked(laid_over(plain_value(own), values, typed) | {"label": own.label})
            if (identity(again), again.seed) == (identity(own), own.seed):
                found[folder.name] = again
    if len(found) > 1:
        names = ", ".join(sorted(found))
        raise Misuse(f"from={parent} is gone, and has the children {names}: type the options in which they differ")
    if not found:
        raise Misuse(f"from={parent}: no such run, neither a folder nor a name in {values['results']}/")
    return next(iter(found.values()))


def outside(config: TrainCommand, trust: bool) -> str:
    """Return the first `_target_` of a configuration that is code from outside posexp; "" with `trust` and for none."""
    return "" if trust else next((target for target in targets(config.components) if not is_own(target)), "")
