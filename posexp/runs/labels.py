"""What the curve of each run is called, and which runs are seeds of one curve."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from posexp.config.values import flat, plain_value
from posexp.errors import RunFailed
from posexp.runs.run import Run
from posexp.storage import untrusted

# Keys that tell no curve from another, and beginnings of such keys.
UNTOLD = {"seed", "group", "results", "label", "device", "sha256", "config_sha256", "tokenizer_sha256"}
UNTOLD_GROUPS = ("eval.", "trainer.", "wandb.")
PATHS = {"data.paths", "data.valid", "data.test"}


def curve_labels(runs: list[Run], say: Callable[[str], None]) -> dict[str, str]:
    """The label of each run's curve; where a label stands for several configurations, with what is not of most of them.

    Seeds of one curve are runs that differ in nothing but their seed and, if each then has a seed of its own, the place
    where the text lay. A line says which runs cannot be read.
    """
    label_of: dict[str, str] = {}
    values_of: dict[str, dict[str, Any]] = {}
    for run in runs:
        try:
            values = run.about() if run.foreign else plain_value(run.config())
        except RunFailed as error:
            say(str(error))
            continue
        label_of[run.name] = str(values.get("name", run.name) if run.foreign else values["label"])
        values_of[run.name] = flat(values)
    code_of = codes([run for run in runs if run.name in label_of], label_of, values_of)
    curves: dict[str, dict[str, dict[str, Any]]] = {}  # of each label its curves, by their codes
    for name, label in label_of.items():
        curves.setdefault(label, {}).setdefault(code_of[name], values_of[name])
    told = {(label, code): title for label in curves for code, title in titles(label, curves[label]).items()}
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
            rest = {key: value for key, value in values.items() if tells(key) and not key.startswith("data.")}
            return json.dumps([store, values["data.cross_documents"], rest], sort_keys=True)
    return run.name


def titles(label: str, curves: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Of the curves of one label, by their codes: the label, with those of a curve's values that no more than half of
    them have. What most have goes without saying."""
    having = Counter((key, repr(value)) for values in curves.values() for key, value in values.items())
    details = {}
    for code, values in curves.items():
        rare = [key for key in sorted(values) if tells(key) and 2 * having[key, repr(values[key])] <= len(curves)]
        details[code] = untrusted.visible(", ".join(filter(None, (in_words(key, values[key]) for key in rare))))
    alike = Counter(details.values())
    parts = {code: [text] * bool(text) + [code] * (alike[text] > 1) for code, text in details.items()}
    return {code: f"{label} ({', '.join(part)})" if part else label for code, part in parts.items()}


def in_words(key: str, value: Any) -> str:
    """base=500.0; of a path the file's name alone, and nothing of a choice of text that was not made."""
    if key.startswith("data.") and value in (None, ""):
        return ""
    if key in PATHS:
        value = "+".join(Path(str(one)).name for one in (value if isinstance(value, list) else [value]))
    return f"{key.removeprefix('scheme.')}={value}"


def tells(key: str) -> bool:
    """Whether curves are told apart by `key`."""
    return key not in UNTOLD and not key.startswith(UNTOLD_GROUPS)


def digest_in(name: str) -> str:
    return name.rpartition("-")[2]
