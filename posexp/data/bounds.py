"""The limits on rebuilding the token store of an untrusted run without trust=true.

The data configuration must not search the disk, load a dataset that posexp does not name or use a slow pattern.
"""

import glob
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from posexp.config.components import read_options
from posexp.config.sections import DataConfig, Source, config_dir
from posexp.data import files
from posexp.errors import Misuse

MOST_ENTRIES = 100_000  # in the searched folders
MOST_BYTES = 4 << 30  # of text
MOST_SIZES = 100_000_000  # total size of a task's examples
REPEATS = set("*+?{|")  # these make a regular expression backtrack


def check_bounds(config: DataConfig) -> None:
    """Raise Misuse if reading or generating the text of `config` could take long."""
    if reason := excess(config):
        raise Misuse(
            f"its token store is not in the cache, and building that store {reason}: read the data: section of its "
            "config.yaml, then set trust=true, or copy its token store into cache=<folder>"
        )


def excess(config: DataConfig) -> str | None:
    """Return which limit the configuration exceeds, or None."""
    own = [read_options(path) for path in sorted((config_dir() / "data").glob("*.yaml"))]
    pattern = config.document_start
    if REPEATS & set(pattern) and not any(pattern == known.get("document_start") for known in own):
        return "needs a regular expression of its own, which can be slow (data.document_start)"
    if config.source is Source.task and config.task_size * config.task_examples > MOST_SIZES:
        return f"makes examples of {config.task_size * config.task_examples / 2:.2g} characters or more"
    if config.source is Source.hub and not any(config.dataset == known.get("dataset") for known in own):
        return f"loads the dataset {config.dataset!r} from the hub"
    if config.source is Source.files:
        return excess_of_files(config)
    return None


def excess_of_files(config: DataConfig) -> str | None:
    named = [config.paths, config.valid, config.test]
    patterns = [path for value in named if value for path in ([value] if isinstance(value, str) else value)]
    for pattern in map(str, patterns):
        if "**" in pattern or glob.has_magic(os.path.dirname(pattern)):
            return f"searches folders for {pattern!r}"
    if sum(1 for _ in islice(entries(patterns), MOST_ENTRIES + 1)) > MOST_ENTRIES:
        return f"searches more than {MOST_ENTRIES:,} files and folders"
    size = sum(path.stat().st_size for found in files.find_files(config).values() for path in found)
    return f"reads {size / 2**30:.0f} GiB of text" if size > MOST_BYTES else None


def entries(patterns: list[Any]) -> Iterator[str]:
    """Yield every file and folder that reading the patterns visits."""
    for pattern in patterns:
        for match in glob.iglob(str(Path(str(pattern)).expanduser())):
            yield match
            for _, folders, names in os.walk(match):
                yield from (*folders, *names)
