"""What the curve of each run is called, and which runs are seeds of one curve."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from posexp import untrusted
from posexp.errors import RunFailed
from posexp.identity import flat, plain
from posexp.runs import Run

# Keys that tell no curve from another, and beginnings of such keys.
UNTOLD = {"seed", "group", "results", "label", "device", "sha256", "tokenizer_sha256"}
UNTOLD_GROUPS = ("eval.", "trainer.", "wandb.")


def curve_labels(runs: list[Run], say: Callable[[str], None]) -> dict[str, str]:
    """The label of each run's curve; where a label stands for several configurations, with what differs.

    Seeds of one curve are runs that differ in nothing but their seed and, if each then has a seed of its own, the place
    where the text lay. A line says which runs cannot be read.
    """
    label_of: dict[str, str] = {}
    values_of: dict[str, dict[str, Any]] = {}
    for run in runs:
        try:
            values = run.about() if run.foreign else plain(run.config())
        except RunFailed as error:
            say(str(error))
            continue
        label_of[run.name] = str(values.get("name", run.name) if run.foreign else values["label"])
        values_of[run.name] = flat(values)
    code_of = codes([run for run in runs if run.name in label_of], label_of, values_of)
    told: dict[tuple[str, str], str] = {}
    for name, label in label_of.items():
        others = [
            values_of[other] for other in label_of if label_of[other] == label and code_of[other] != code_of[name]
        ]
        details = untrusted.visible(what_differs(values_of[name], others)) or digest_in(name)
        told.setdefault((label, code_of[name]), f"{label} ({details})" if others else label)
    return {name: told[label, code_of[name]] for name, label in label_of.items()}


def codes(runs: list[Run], label_of: dict[str, str], values_of: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Of each run a code that it shares with the seeds of its curve: the digest in its name, or that of the first run
    which was trained on the same tokens with all else equal, unless a seed would be there twice."""
    first: dict[tuple[str, str], str] = {}
    merged: dict[str, str] = {}
    for run in runs:
        digest = digest_in(run.name)
        merged.setdefault(digest, first.setdefault((label_of[run.name], likeness(run, values_of[run.name])), digest))
    seeds = Counter((label_of[n], merged[digest_in(n)], values_of[n].get("seed", n)) for n in label_of)
    twice = {code for (_, code, _), count in seeds.items() if count > 1}
    return {n: digest_in(n) if merged[digest_in(n)] in twice else merged[digest_in(n)] for n in label_of}


def likeness(run: Run, values: dict[str, Any]) -> str:
    """Equal of runs that differ in nothing but their seed and the place of their text."""
    with suppress(RunFailed):
        if not run.foreign and (store := run.provenance().get("store")):
            rest = {key: value for key, value in values.items() if key not in UNTOLD and not key.startswith("data.")}
            rest = {key: value for key, value in rest.items() if not key.startswith(UNTOLD_GROUPS)}
            return json.dumps([store, values["data.cross_documents"], rest], sort_keys=True)
    return run.name


def what_differs(values: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """The keys that have another value in any of `others`, with their values here."""
    differing = sorted(
        key
        for key in values
        if any(other.get(key) != values[key] for other in others)
        and key not in UNTOLD
        and not key.startswith(UNTOLD_GROUPS)
    )
    return ", ".join(f"{key.removeprefix('scheme.')}={values[key]}" for key in differing)


def digest_in(name: str) -> str:
    return name.rpartition("-")[2]
