"""The report on a scheme as a table and a summary line."""

from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.text import Text

from posexp.check.measure import Reach
from posexp.check.verdict import SHIFTS, Report, name_of
from posexp.output.grid import Grid

LEGEND = (
    "error, shift, prefix: largest change of a log attention weight, or of the output if the scheme defines its own "
    "attention. error: against float64. shift: when all positions move. prefix: in the first half of the input, by the "
    "second half. angle: error of rotated queries and keys against float64, in radians. -: does not apply."
)


def show(report: Report, width: int) -> Group:
    """Return a table of at most `width` characters, with one row per dtype and length, and the summary."""
    parts: list[Any] = []
    if report.rows:
        heads = ["type", "tokens", "error", "angle", *(f"shift {shift:,}" for shift in SHIFTS), "prefix"]
        rows = []
        for row in report.rows:
            moved = row.shifts or (None,) * len(SHIFTS)
            figures = (row.error, row.angle, *moved, row.prefix)
            rows.append([name_of(row.dtype), f"{row.length:,}", *map(short, figures)])
        parts += [Text(f"{report.name}: {report.fingerprint}", style="bold"), *Grid(heads, rows, names=2).pieces(width)]
    mark, style = ("✗", "bold red") if report.broken else ("✓", "bold green")
    parts.append(Text.assemble((f"{mark} {report.name} ", style), "; ".join(report_summary(report))))
    return Group(*parts, Text())


def report_summary(report: Report) -> Iterator[str]:
    if report.broken:
        yield from report.broken
        return
    for promise in report.promises:
        yield f"{promise.name} {short(promise.figure)} ({promise.bound})"
    kinds_of: dict[str, list[str]] = {}
    for kind, reach in report.finite.items():
        kinds_of.setdefault(finite_text(reach), []).append(name_of(kind))
    for words, kinds in kinds_of.items():
        yield f"{words} in {' and '.join(kinds)}"
    if report.authors is None:
        yield "authors' numbers: none"


def finite_text(reach: Reach) -> str:
    if reach.broken is None:
        return (
            f"finite to {reach.tried:,} tokens and more"
            if reach.more
            else f"finite to its end, {reach.tried:,} tokens,"
        )
    return f"not finite from {reach.broken:,} tokens"


def short(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.1e}" if 0 < abs(figure) < 0.001 else f"{figure:.3g}"
