"""The fields of config dataclasses, with their metadata, and the checks of their values."""

import os
import re
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from posexp.errors import Misuse
from posexp.storage.names import LONGEST_NAME, is_name

MOST = 1 << 40  # of any number, so that products of two, or of a seed and a step, do not overflow
MOST_LENGTHS = 1000  # each length is a pass over the text
ROOM = 600  # bytes of the longest path below the folder of a run or a store, as of losses, wandb and datasets


def knob(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float = MOST,
    identity: bool = True,
    part: bool = False,
    text: bool = False,
    choices_of: type | None = None,
) -> Any:
    """Return a dataclass field with its one-line `meaning`, and the `least` and `most` number or a bound it is `above`.

    `identity=False` marks an option that does not change the result of a run, only where or how it is stored.
    `part` marks a component, whose class is named by `_target_` (posexp/config/components.py).
    `text` marks a text, a list of texts or null, for which OmegaConf has no type.
    `choices_of` marks a dict {name: value} of the chosen fields of a dataclass.
    """
    metadata: dict[str, Any] = {"meaning": meaning, "least": least, "above": above, "most": most}
    metadata |= {"identity": identity, "part": part, "text": text, "choices_of": choices_of}
    if isinstance(default, (list, type)):
        factory = default if isinstance(default, type) else lambda: list(default)
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_least(section: Any, prefix: str) -> None:
    """Raise Misuse for a number outside the allowed values of its option, or for text with a NUL character."""
    for knob_ in fields(section):
        value, least, above = getattr(section, knob_.name), knob_.metadata["least"], knob_.metadata["above"]
        name = f"{prefix}.{knob_.name}" if prefix else knob_.name
        if above is not None and not value > above:
            raise Misuse(f"{name}={value} must be above {above}")
        if least is not None and value is not None and not value >= least:
            off = re.search(r"; (null: .*)", knob_.metadata["meaning"])
            raise Misuse(f"{name}={value} must be at least {least}" + (f"; {off[1]}" if off else ""))
        if isinstance(value, (int, float)) and not value <= (most := knob_.metadata["most"]):
            raise Misuse(f"{name}={value:.3g} must be at most {most}" if value < 1e300 else f"{name} is too large")
        if isinstance(value, str) and "\0" in value:
            raise Misuse(f"{name} must not contain a NUL character")


def check_lengths(lengths: list[int], key: str = "eval.lengths") -> None:
    """Raise Misuse unless `lengths` are positive, all different and at most MOST_LENGTHS."""
    if not lengths:
        raise Misuse(f"{key} is empty: name at least one, as in --lengths 512,2048")
    if len(lengths) > MOST_LENGTHS:
        raise Misuse(f"{key} must have at most {MOST_LENGTHS} lengths, got {len(lengths):,}")
    if bad := [n for n in lengths if n < 1]:
        raise Misuse(f"evaluation length {bad[0]} must be at least 1")
    if max(lengths) > MOST:
        raise Misuse(f"an evaluation length must be at most {MOST}")
    if repeated := [n for n in set(lengths) if lengths.count(n) > 1]:
        raise Misuse(f"evaluation length {repeated[0]} must not be repeated")


def check_name(key: str, name: str) -> None:
    """Raise Misuse unless `name` is one plain folder name."""
    if not is_name(name):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise Misuse(f"{key}={shown!r} must be a plain folder name of at most {LONGEST_NAME} bytes")


def check_room(key: str, folder: Path) -> None:
    """Raise Misuse if the path of `folder`, set by option `key`, is too long for the files below it."""
    if not hasattr(os, "pathconf"):
        return
    place = folder.absolute()
    there = next((parent for parent in (place, *place.parents) if os.access(parent, os.F_OK)), Path("/"))
    most = os.pathconf(there, "PC_PATH_MAX") - ROOM
    if (length := len(os.fsencode(place))) > most:
        limit = f"must be at most {most:,} because of the files below it"
        raise Misuse(f"{key} makes a path of {length:,} bytes, which {limit}")
    longest = os.pathconf(there, "PC_NAME_MAX")
    if long := [part for part in place.parts if len(os.fsencode(part)) > longest]:
        raise Misuse(f"{key}: the folder name {long[0][:40]}… must be at most {longest} bytes")
