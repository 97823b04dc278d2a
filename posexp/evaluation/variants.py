"""The variants of a model in an evaluation: no transform or one of the requested transforms, under any window."""

from dataclasses import dataclass
from math import isclose
from typing import Any

from posexp import transforms, windows
from posexp.config.components import read_options
from posexp.config.sections import config_dir
from posexp.dims import Dims
from posexp.evaluation.rows import KEY, Row
from posexp.schemes import Scheme
from posexp.transforms import Transform
from posexp.windows import Window

UNCHANGED = 1e-6  # relative difference of mean losses that rounding in another batch explains


@dataclass(frozen=True)
class Variant:
    """A transform and a window; `name` is "" and `transform` None for the model as trained."""

    name: str
    transform: Transform | None
    window: Window

    def applied(self, scheme: Scheme, length: int) -> tuple[Scheme, Window]:
        """Return the scheme and window for inputs of at most `length` tokens; NotApplicable if nothing can change."""
        if self.transform is None:
            return scheme, self.window
        changed, window = self.transform.apply(scheme, self.window, length)
        changed.train(scheme.training)
        return changed, window

    def settings(self, length: int) -> str:
        """Return the settings of the transform at this length, "" without a transform."""
        return "" if self.transform is None else self.transform.describe(length)


def variants(dims: Dims, trained: Window, window: dict[str, Any] | None, nodes: dict[str, Any]) -> list[Variant]:
    """Return the model without a transform, then with each transform, under `window` (None: the window of training)."""
    seen = trained if window is None else windows.from_config(window, dims)
    transformed = [
        Variant(label_of(name, node), transforms.from_config(node, dims), seen) for name, node in nodes.items()
    ]
    return [Variant("", None, seen), *transformed]


def without_effect(rows: list[Row], new: list[Row]) -> list[str]:
    """Return a line for each transform and protocol of the `new` rows whose losses equal those without a transform."""
    columns = tuple(column for column in KEY if not column.startswith("transform"))
    plain = {row.key(columns): row.nll for row in rows if not row.transform}
    lengths: dict[tuple[str, str | None], list[int]] = {}
    for row in new:
        before, after = plain.get(row.key(columns)), row.nll
        if row.transform and before and after and isclose(before, after, rel_tol=UNCHANGED):
            lengths.setdefault((row.protocol, row.transform_settings), []).append(row.length)
    return [
        f"{protocol} {', '.join(map(str, sorted(at)))}: {settings} changes nothing: losses equal those without it"
        for (protocol, settings), at in lengths.items()
    ]


def label_of(name: str, node: dict[str, Any]) -> str:
    """Return the transform's name and the options that differ from the defaults: `yarn`, `yarn(factor=8)`."""
    path = config_dir() / "transform" / f"{name}.yaml"
    defaults = read_options(path) if path.is_file() else {}
    chosen = {key: value for key, value in node.items() if key != "_target_" and value != defaults.get(key, value)}
    if not path.is_file() or node.get("_target_") != defaults.get("_target_"):  # external: all options
        chosen = {key: value for key, value in node.items() if key != "_target_"}
    options = ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in chosen.items()
    )
    return f"{name}({options})" if options else name
