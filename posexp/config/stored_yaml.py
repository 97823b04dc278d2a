"""A loader for untrusted YAML of stored configurations, limited in size and to plain values."""

import re
from typing import Any, ClassVar

import yaml

from posexp.config.overrides import TAG, TypedLoader
from posexp.storage.untrusted import DEEPEST

MOST_NODES = 4_000  # keys and values per file; real files have 200, and OmegaConf is slow
MOST_TEXT = 10_000  # characters per key or value


class StoredLoader(TypedLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader of the YAML that posexp writes: decimal numbers, true, false and null; any other scalar is text.

    Numbers in base 60 are text too, because parsing them takes time quadratic in their digits.
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
    """Return the mapping of plain values in a YAML file.

    Raises ValueError for an alias, which can stand for billions of values, an interpolation, which would read the
    environment or call a resolver, a tag, which names a Python type, values that are too many, too deep or too long,
    and invalid YAML.
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
                raise ValueError("it has an interpolation, ${…}, and must hold plain values")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > MOST_TEXT:
                size = f"{len(event.value):,} characters, which must be at most {MOST_TEXT:,}"
                raise ValueError(f"it has a value of {size}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            if depth > DEEPEST:
                raise ValueError("it is nested too deeply")
            if nodes > MOST_NODES:
                raise ValueError(f"it holds more than {MOST_NODES:,} keys and values")
        value = StoredLoader(text).get_single_data()
    except ValueError:
        raise
    except Exception as error:  # YAML parsers raise errors of their own
        raise ValueError(f"it is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(value, dict):
        raise ValueError("it is cut off" if isinstance(value, str) else "it holds no keys and values")
    return value
