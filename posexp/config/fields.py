"""What a field of a config dataclass says of itself, and what its values must keep."""

import os
import re
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from posexp.errors import Misuse
from posexp.storage.names import LONGEST_NAME, is_name

MOST = 1 << 40  # of any number: products of two, and of a seed and a step, fit where they must
MOST_LENGTHS = 1000  # each is a pass over the text
ROOM = 600  # bytes of a path below a run's folder or a store's: losses, wandb's and datasets' files are the longest


def knob(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    most: int = MOST,
    identity: bool = True,
    part: bool = False,
    text: bool = False,
    choices_of: type | None = None,
) -> Any:
    """A dataclass field with its one-line `meaning` and its smallest and its largest allowed value.

    `identity=False` marks what does not change a run's result, only where or how it is kept; `part` a section that
    names its class by `_target_` (posexp/config/components.py); `text` a text, a list of texts or null, for which
    OmegaConf has no type; `choices_of` a section that holds only those fields of a dataclass that were chosen, as
    {name: value}.
    """
    metadata: dict[str, Any] = {"meaning": meaning, "least": least, "most": most, "identity": identity}
    metadata |= {"part": part, "text": text, "choices_of": choices_of}
    if isinstance(default, (list, type)):
        factory = default if isinstance(default, type) else lambda: list(default)
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_least(section: Any, prefix: str) -> None:
    """Raises Misuse for a number below its knob's smallest allowed value, or too large to compute with, and for text
    that no file name can hold."""
    for knob_ in fields(section):
        value, least = getattr(section, knob_.name), knob_.metadata["least"]
        name = f"{prefix}.{knob_.name}" if prefix else knob_.name
        if least is not None and value is not None and not value >= least:
            off = re.search(r"; (null: .*)", knob_.metadata["meaning"])
            raise Misuse(f"{name}={value} must be at least {least}" + (f"; {off[1]}" if off else ""))
        if isinstance(value, (int, float)) and not value <= (most := knob_.metadata["most"]):
            raise Misuse(f"{name}={value:.3g} must be at most {most}" if value < 1e300 else f"{name} is too large")
        if isinstance(value, str) and "\0" in value:
            raise Misuse(f"{name} holds a NUL character")


def check_lengths(lengths: list[int], key: str = "eval.lengths") -> None:
    """Raises Misuse unless `lengths` are positive and all different."""
    if not lengths:
        raise Misuse(f"{key} is empty: name at least one, as in --lengths 512,2048")
    if len(lengths) > MOST_LENGTHS:
        raise Misuse(f"{key} names {len(lengths):,} lengths, and at most {MOST_LENGTHS} are evaluated at once")
    if bad := [n for n in lengths if n < 1]:
        raise Misuse(f"evaluation length {bad[0]} must be at least 1")
    if max(lengths) > MOST:
        raise Misuse(f"an evaluation length must be at most {MOST}")
    if repeated := [n for n in set(lengths) if lengths.count(n) > 1]:
        raise Misuse(f"evaluation length {repeated[0]} is given more than once")


def check_name(key: str, name: str) -> None:
    """Raises Misuse unless `name` is one plain folder name."""
    if not is_name(name):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise Misuse(f"{key}={shown!r} must be a plain folder name of at most {LONGEST_NAME} bytes")


def check_room(key: str, folder: Path) -> None:
    """Raises Misuse if `folder`, which option `key` leads to, is so long that no file below it can be written."""
    if not hasattr(os, "pathconf"):
        return
    place = folder.absolute()
    there = next((parent for parent in (place, *place.parents) if os.access(parent, os.F_OK)), Path("/"))
    most = os.pathconf(there, "PC_PATH_MAX") - ROOM
    if (length := len(os.fsencode(place))) > most:
        raise Misuse(
            f"{key} makes a path of {length:,} bytes, and at most {most:,} leave room for the files below it: "
            "choose a shorter one"
        )
    longest = os.pathconf(there, "PC_NAME_MAX")
    if long := [part for part in place.parts if len(os.fsencode(part)) > longest]:
        raise Misuse(f"{key}: the folder {long[0][:40]}… has a name of more than {longest} bytes: choose a shorter one")
