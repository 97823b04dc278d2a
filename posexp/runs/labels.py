"""The labels of the curves, and the grouping of runs into seeds of one curve."""

import hashlib
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

# Keys, and prefixes of keys, that do not distinguish curves.
NEUTRAL_KEYS = {
    *("seed", "group", "results", "label", "device", "loggers", "trust"),
    *("train.checkpoint_every", "train.validate_every", "sha256", "config_sha256", "tokenizer_sha256"),
}
NEUTRAL_PREFIXES = ("eval.", "trainer.", "wandb.")
OF_PARENT = {"run", "weights", "folder"}  # what the parents of one curve's seeds do not share
PATHS = {"data.paths", "data.valid", "data.test"}


def curve_labels(runs: list[Run], say: Callable[[str], None]) -> dict[str, str]:
    """Return one curve label per run.

    When runs share a label but differ in configuration, append the values that most of them do not share. Runs are
    seeds of one curve if they differ only in their seed, or in seed and location of the text if no seed occurs twice.
    Runs that cannot be read are logged through `say` and skipped.
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
    curves: dict[str, dict[str, dict[str, Any]]] = {}  # label → code → values
    for name, label in label_of.items():
        curves.setdefault(label, {}).setdefault(code_of[name], values_of[name])
    title_of = {(label, code): title for label in curves for code, title in titles(label, curves[label]).items()}
    return {name: title_of[label, code_of[name]] for name, label in label_of.items()}


def run_recipes(runs: list[Run]) -> dict[str, str]:
    """Return a key for each trained run, equal for runs that differ only in training length, seed and path of text."""
    found = {}
    for run in runs:
        with suppress(RunFailed):
            if not run.foreign:
                values = flat(plain_value(run.config()))
                likely = likeness(run, {key: value for key, value in values.items() if key != "train.length"})
                found[run.name] = hashlib.sha256(likely.encode()).hexdigest()[:12] if likely != run.name else ""
    return found


def codes(runs: list[Run], label_of: dict[str, str], values_of: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return a code for each run, equal for the seeds of one curve.

    The code is the digest in the name of the first run that was trained on the same tokens with an otherwise equal
    configuration. If that would give one curve the same seed twice, the code is the digest in the run's own name.
    """
    first: dict[tuple[str, str], str] = {}
    merged: dict[str, str] = {}
    for run in runs:
        digest = digest_in(run.name)
        merged.setdefault(digest, first.setdefault((label_of[run.name], likeness(run, values_of[run.name])), digest))
    seeds = Counter((label_of[n], merged[digest_in(n)], values_of[n].get("seed", n)) for n in label_of)
    twice = {code for (_, code, _), count in seeds.items() if count > 1}
    return {n: digest_in(n) if merged[digest_in(n)] in twice else merged[digest_in(n)] for n in label_of}


def likeness(run: Run, values: dict[str, Any]) -> str:
    """Return a key that is equal for runs that differ only in their seed and the location of their text."""
    with suppress(RunFailed):
        if not run.foreign and (store := run.provenance().get("store")):
            rest = {key: value for key, value in values.items() if distinguishes(key) and not key.startswith("data.")}
            return json.dumps([store, values["data.cross_documents"], rest], sort_keys=True)
    return run.name


def titles(label: str, curves: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return a title per code for the curves of one label: the label, with values that at most half the curves have."""
    having = Counter((key, repr(value)) for values in curves.values() for key, value in values.items())
    details = {}
    for code, values in curves.items():
        rare = [
            key for key in sorted(values) if distinguishes(key) and 2 * having[key, repr(values[key])] <= len(curves)
        ]
        details[code] = untrusted.visible(", ".join(filter(None, (detail(key, values[key]) for key in rare))))
    alike = Counter(details.values())
    parts = {code: [text] * bool(text) + [code] * (alike[text] > 1) for code, text in details.items()}
    return {code: f"{label} ({', '.join(part)})" if part else label for code, part in parts.items()}


def detail(key: str, value: Any) -> str:
    """Return text such as base=500.0, with only the file name of a path; empty for an unset data option."""
    if key.startswith("data.") and value in (None, ""):
        return ""
    if key in PATHS:
        value = "+".join(Path(str(one)).name for one in (value if isinstance(value, list) else [value]))
    if key.endswith("._target_"):  # temperature=SSMax
        key, value = key.removesuffix("._target_"), str(value).rpartition(".")[2]
    return f"{key.removeprefix('scheme.')}={value}"


def distinguishes(key: str) -> bool:
    """Return whether `key` distinguishes curves."""
    if key.startswith("parent.") and key.rpartition(".")[2] in OF_PARENT:
        return False
    return key not in NEUTRAL_KEYS and not key.startswith(NEUTRAL_PREFIXES)


def digest_in(name: str) -> str:
    return name.rpartition("-")[2]
