"""Files that may be somebody else's, such as a downloaded run folder: data, read within bounds, that runs nothing.

What is read here can be printed: every character that a terminal would act on is written out, as in \\x1b.
"""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, ClassVar

import yaml

from posexp.values import TAG, TypedLoader

MOST_BYTES = 256 << 20  # of one file of text; real ones have a few MB
DEEPEST = 32  # of values inside values; real ones are six deep
MOST_NODES = 4_000  # keys and values of a YAML file; real ones have 200, and OmegaConf is slow
MOST_TEXT = 10_000  # characters of one of its keys or values
MOST = 1 << 53  # of a whole number, so that a float holds it too


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises OSError; ValueError for a link, a pipe or a device, or too many bytes."""
    refuse_link(path)
    # O_NONBLOCK: opening a pipe would wait for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not a regular file")
        if about.st_size > most:
            raise ValueError(f"it has {about.st_size:,} bytes, and at most {most:,} are read")
        return file.read(about.st_size)


def refuse_link(path: Path) -> None:
    """Raises ValueError for a symbolic link: whoever made the folder chose where it leads."""
    if path.is_symlink():
        raise ValueError(f"{path.name} is a symbolic link, which is not followed out of the folder")


def json_of(content: bytes) -> Any:
    """Raises ValueError for what is not JSON of finite numbers, nested DEEPEST times at most."""
    return printable(parsed(content))


def parsed(content: bytes) -> Any:
    """The same with its text as it is."""
    try:
        return json.loads(content.decode(), parse_constant=no_number, parse_float=finite, parse_int=whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class StoredLoader(TypedLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The YAML that posexp writes: decimal numbers, true, false and null. Whatever else looks like one is text.

    So no number is in base 60, whose digits take a time that grows with their square.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}


for kind, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]{0,19})", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    StoredLoader.add_implicit_resolver(f"{TAG}{kind}", re.compile(f"({pattern})$"), list(first))


def yaml_of(content: bytes) -> dict[Any, Any]:
    """The mapping that a YAML file holds, of plain values.

    Raises ValueError for anything else: an alias, which can stand for billions of values; an interpolation, which
    would read the environment or call a resolver; a tag, which names a Python type; too many values, or too deep or
    too long ones; YAML that is none.
    """
    depth = nodes = 0
    try:
        text = content.decode()
        for event in yaml.parse(text, Loader=StoredLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has an alias (*), which stands for other values")
            if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None):
                raise ValueError(f"it has a tag ({event.tag}), which names a type")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise ValueError("it has an interpolation, ${…}, and is to hold plain values")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > MOST_TEXT:
                raise ValueError(
                    f"it has a value of {len(event.value):,} characters, and at most {MOST_TEXT:,} are read"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            if depth > DEEPEST:
                raise ValueError("it is nested too deeply")
            if nodes > MOST_NODES:
                raise ValueError(f"it holds more than {MOST_NODES:,} keys and values")
        value = StoredLoader(text).get_single_data()
    except ValueError:
        raise
    except Exception as error:  # a YAML parser raises its own kinds
        raise ValueError(f"it is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(value, dict):
        raise ValueError("it is cut off" if isinstance(value, str) else "it holds no keys and values")
    return value


def printable(value: Any, depth: int = 0) -> Any:
    """`value` with all of its text `visible`. Raises ValueError beyond DEEPEST."""
    if isinstance(value, str):
        return visible(value)
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        return {visible(key): printable(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [printable(inner, depth + 1) for inner in value]
    return value


def visible(text: str) -> str:
    """`text` with every character that is not printed, or moves what is, written out: \\n, \\x1b, \\u202e."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def whole_number(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MOST:
        raise ValueError("a whole number is too large")
    return int(text)


# What a field of a file may be.


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e300


def is_loss(value: Any) -> bool:
    """In nats or bits: rounding may take one below 0, but not far."""
    return type(value) in (int, float) and -1 <= value < 1e300


def is_perplexity(value: Any) -> bool:
    return is_loss(value) and value > 0.1


def is_share(value: Any) -> bool:
    return is_amount(value) and value <= 1
