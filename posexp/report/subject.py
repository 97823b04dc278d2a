"""What was trained on what, for the titles of pictures."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from posexp.config.sections import Source
from posexp.errors import RunFailed
from posexp.output.text import one_line
from posexp.runs.run import Run
from posexp.storage.untrusted import visible


def subject_of(runs: list[Run]) -> str:
    """Return the decoders' size and text, such as "1.0 M parameters on books", without what runs differ in."""
    sizes, texts = set(), set()
    for run in runs:
        with suppress(RunFailed, KeyError, TypeError, ValueError):
            if not run.foreign:
                sizes.add(f"{int(run.provenance()['parameters']['decoder']) / 1e6:.2g} M parameters")
                texts.add(text_of(run.section("data")))
    return " on ".join(one_line(visible(next(iter(found))))[:60] for found in (sizes, texts) if len(found) == 1)


def text_of(data: dict[str, Any]) -> str:
    """Return the name of the text of a data section: that of its first file, its dataset, task or track."""
    if data["source"] == Source.stdlib.value:
        return "Python's standard library"
    paths = data.get("paths")
    path = paths[0] if isinstance(paths, list) and paths else paths
    named = data.get("dataset") or data.get("task") or data.get("track")
    return str(named or Path(str(path)).name.split(".")[0] or data["source"])
