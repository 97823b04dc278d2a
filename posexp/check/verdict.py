"""The promises of a scheme, and by how much it keeps or breaks each."""

from dataclasses import dataclass, field

import torch

from posexp.check import authors, measure
from posexp.check.measure import SHIFTS, Row
from posexp.check.probe import Make, Probe
from posexp.schemes import build_scheme

# Tolerances for rounding: logits of 10 in bfloat16 (the scheme `none` changes by 0.02), and five units in the last
# place of p for angles at position p in float32.
STEP = {torch.float32: 1e-4, torch.bfloat16: 0.25}
DRIFT = 3e-7
READS = 1e-4  # minimum effect of token order for a scheme that reads positions
# (promise, column of the measurements, shift of positions, what the column's figure is)
COLUMNS = (
    *(("relative", f"shift {shift:,}", shift, f"moving all positions by {shift:,} changes") for shift in SHIFTS),
    ("prefix-stable", "prefix", 0, "the second half changes the first by"),
    ("exact", "error", 0, "the deviation from float64 is"),
)


@dataclass
class Report:
    """All results for one scheme. `kept` and `broken` have one line per promise; an error is broken["raises"]."""

    name: str
    fingerprint: str = ""
    rows: list[Row] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def promise(self, name: str, figure: float, bound: str, kept: bool, means: str) -> None:
        """Add a promise with its figure, the bound on it, and an explanation of the figure."""
        if kept:
            self.kept[name] = f"{name} {short(figure)} ({bound})"
        else:
            self.broken[name] = f"{name}: {means} {figure:.2g} ({bound})"

    def at_most(self, name: str, figure: float, most: float, means: str) -> None:
        self.promise(name, figure, f"≤ {most:.2g}", figure <= most, means)


def examine(name: str, make: Make, lengths: list[int], with_authors: bool = False) -> Report:
    """Measure the scheme that `make` builds at `lengths` in tokens. Any exception is reported as a broken promise."""
    report = Report(name)
    try:
        add_promises(report, make, lengths)
        add_authors(report, authors.cases(name) if with_authors else [])
    except Exception as error:  # a user's scheme may raise anything
        return Report(name, broken={"raises": f"{type(error).__name__}: {' '.join(str(error).split())}"})
    return report


def add_promises(report: Report, make: Make, lengths: list[int]) -> None:
    scheme = Probe(make).scheme
    report.fingerprint, report.rows = scheme.fingerprint(), measure.rows(make, lengths)
    promised = {"relative": scheme.relative, "prefix-stable": scheme.prefix_stable, "exact": True}
    found: dict[str, list[tuple[float, float, str]]] = {}  # figure, allowed, explanation
    for row in report.rows:
        for name, column, shift, means in COLUMNS:
            figure = row.figures[column]
            if promised[name] and figure is not None:
                allowed = STEP[row.dtype] + DRIFT * (row.length + shift)
                where = f"in {name_of(row.dtype)} at {row.length:,} tokens {means}"
                found.setdefault(name, []).append((figure, allowed, where))
    for name, measured in found.items():
        report.at_most(name, *max(measured, key=lambda entry: entry[0] / entry[1]))
    means = "the order of earlier tokens changes the output by"
    order = measure.order_effect(make)
    if scheme.reads_positions:
        report.promise("reads positions", order, f"> {READS:.2g}", order > READS, means)
    else:
        report.at_most("reads no positions", order, READS, means)
    report.at_most("no future", measure.future_leak(make), 1e-6, "a later token changes the output by")
    before = "a longer input, a batch and a bfloat16 call before change the output by"
    report.at_most("no memory", measure.memory(make), 0.0, before)
    report.at_most("batch apart", measure.batch_leak(make), 1e-5, "another sequence in the batch changes the output by")
    if (kind := measure.bias_type(make)) is not None:
        step, most = torch.finfo(kind).eps, torch.finfo(torch.float32).eps
        report.at_most("bias in float32", step, most, f"the bias is {name_of(kind)}, with steps of")
    for dtype in (torch.float32, torch.float16):
        if (reach := measure.finite_reach(make, dtype)) is not None:
            report.kept[f"finite in {dtype}"] = f"finite to {reach:,} tokens in {name_of(dtype)}"


def add_authors(report: Report, cases: list[authors.Case]) -> None:
    """Add the deviation of posexp's scheme from results of its authors' code."""
    if not cases:
        report.kept["authors' numbers"] = "authors' numbers: none"
        return
    errors = [authors.worst(case, build_scheme(report.name, case.dims, **case.options)) for case in cases]
    matched = all(error <= case.tolerance for error, case in zip(errors, cases, strict=True))
    bound = f"{len(cases)} from {', '.join(dict.fromkeys(case.source.split(',')[0] for case in cases))}"
    report.promise("authors' numbers", max(errors), bound, matched, "the largest deviation is")


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def short(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.1e}" if 0 < abs(figure) < 0.001 else f"{figure:.3g}"
