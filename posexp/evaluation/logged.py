"""What loggers get of an evaluation: curves over length, one value per length for the summary, and all rows."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from posexp.config.sections import EvalConfig
from posexp.evaluation.plan import PROTOCOLS, is_moving
from posexp.evaluation.rows import COLUMNS, KEY, Row, rows_to_csv
from posexp.runs.logger import Evaluation

NUMBERS = ("ppl", "nll", "bits_per_byte", "accuracy", "exact_match")  # columns that loggers draw
SUMMARISED = ("ppl", "exact_match")


def logged_rows(
    rows: list[Row], config: EvalConfig, judged: Mapping[str, float | str] = MappingProxyType({})
) -> Evaluation:
    """Return the evaluation of a run for loggers: of its rows, the last of each measurement of its last weights.

    `judged` is what the summary says of the run's group: verdicts, and the usable length.
    """
    latest = {row.key(KEY): row for row in rows if row.weights == rows[-1].weights}.values()
    curves = {}
    for row in latest:
        name = curve_name(row, set_name(row, config))
        known = {f"{name}/{column}": value for column in NUMBERS if (value := getattr(row, column)) is not None}
        if known:
            curves[row.length, name] = row.length, known
    table = [{column: getattr(row, column) for column in COLUMNS} for row in latest]
    ordered = [curves[key] for key in sorted(curves)]
    return Evaluation(table, rows_to_csv(list(latest)), ordered, {**summarised(latest), **judged})


def summarised(rows: Iterable[Row]) -> dict[str, float]:
    """Return values such as eval/same_targets/ppl@2048/yarn, for the largest set of targets of a length."""
    found: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: row.targets or 0):
        if row.control or (row.protocol in PROTOCOLS and PROTOCOLS[row.protocol].drawn_only):
            continue
        for column in SUMMARISED:
            if (value := getattr(row, column)) is not None:
                found["/".join(("eval", row.protocol, f"{column}@{row.length}", *variant(row)))] = value
    return found


def curve_name(row: Row, targets: str) -> str:
    """Return a name such as eval/same_targets 1a2b3c4d/sliding 64/yarn, for the hash of a set of `targets`."""
    control = [f"control {row.control}"] if row.control else []
    return "/".join(("eval", f"{row.protocol} {targets}", *variant(row), *control))


def variant(row: Row) -> list[str]:
    """Return what the row was measured on and with, beside the run's own text, window and training length."""
    seen = row.control_of or row.window
    window = seen if seen != row.trained_window else ""
    judged = f"judged from {row.judged_from}" if row.judged_from else ""
    return [part for part in (row.corpus, judged, window, row.transform) if part]


def set_name(row: Row, config: EvalConfig) -> str:
    """Return the name of a row's set of targets: the hash or, for moving protocols, how the targets were chosen."""
    if not is_moving(row.protocol):
        return row.targets_hash[:8]
    stride = f", stride {row.stride}" if row.stride else ""
    return f"{'all' if config.targets is None else config.targets} {row.split} targets{stride}"
