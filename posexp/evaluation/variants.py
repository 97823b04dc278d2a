"""Ways of evaluating one trained model: as it is, and with each of the transforms asked for, through any window."""

from dataclasses import dataclass
from math import isclose
from typing import Any

from posexp import transforms, windows
from posexp.config.components import read_options
from posexp.config.sections import config_dir
from posexp.dims import Dims
from posexp.evaluation.done import KEY, key_of
from posexp.evaluation.rows import Row
from posexp.schemes import Scheme
from posexp.transforms import Transform
from posexp.windows import Window

UNCHANGED = 1e-6  # relative, of mean losses: rounding, where another batch held the same text


@dataclass(frozen=True)
class Variant:
    """`name` is "" for the model as trained."""

    name: str
    transform: Transform | None
    window: Window

    def applied(self, scheme: Scheme, length: int) -> tuple[Scheme, Window]:
        """Scheme and window for inputs of at most `length` tokens.

        Raises NotApplicable if the transform has nothing to change in the scheme.
        """
        if self.transform is None:
            return scheme, self.window
        changed, window = self.transform.apply(scheme, self.window, length)
        changed.train(scheme.training)
        return changed, window

    def settings(self, length: int) -> str:
        """What the transform does at this length, "" without one."""
        return "" if self.transform is None else self.transform.describe(length)


def variants(dims: Dims, trained: Window, window: dict[str, Any] | None, nodes: dict[str, Any]) -> list[Variant]:
    """The model as trained, then with each transform; seen through `window` if one is given, else as trained.

    Raises Misuse for a transform or window that cannot be built.
    """
    seen = trained if window is None else windows.from_config(window, dims)
    transformed = [
        Variant(label_of(name, node), transforms.from_config(node, dims), seen) for name, node in nodes.items()
    ]
    return [Variant("", None, seen), *transformed]


def without_effect(rows: list[Row], new: list[Row]) -> list[str]:
    """One line for each transform of the `new` rows that leaves losses as they are without it: at which lengths.

    So it is with a factor of 1, or a base that is set already. The rows without a transform are looked up in `rows`.
    """
    columns = tuple(column for column in KEY if not column.startswith("transform"))
    plain = {key_of(row, columns): row.get("nll") for row in rows if not row.get("transform")}
    lengths: dict[tuple[str, str], list[int]] = {}
    for row in new:
        before, after = plain.get(key_of(row, columns)), row["nll"]
        if row["transform"] and before and after and isclose(before, after, rel_tol=UNCHANGED):
            lengths.setdefault((row["protocol"], row["transform_settings"]), []).append(row["length"])
    return [
        f"{protocol} {', '.join(map(str, sorted(at)))}: {settings} changes nothing, losses are those without it"
        for (protocol, settings), at in lengths.items()
    ]


def label_of(name: str, node: dict[str, Any]) -> str:
    """The transform's name and the options that differ from its YAML: `yarn`, `yarn(factor=8)`."""
    path = config_dir() / "transform" / f"{name}.yaml"
    usual = read_options(path) if path.is_file() else {}
    chosen = {key: value for key, value in node.items() if key != "_target_" and value != usual.get(key, value)}
    if not path.is_file() or node.get("_target_") != usual.get("_target_"):  # of the user's own: all that it is given
        chosen = {key: value for key, value in node.items() if key != "_target_"}
    options = ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in chosen.items()
    )
    return f"{name}({options})" if options else name
