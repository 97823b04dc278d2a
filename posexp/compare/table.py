"""The tables of comparisons and of power, for the terminal, Markdown and CSV."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from posexp.compare.pairs import Comparison, Key, grouped
from posexp.compare.seeds import MOST_SEEDS, Power
from posexp.evaluation.statistics import ALPHA
from posexp.output.grid import Grid
from posexp.output.text import csv_text, escape
from posexp.report.metric import digits, percent
from posexp.report.tables import counted

if TYPE_CHECKING:
    from rich.console import Console

HEAD = ("length", "perplexity", "of base", "difference, nats", "perplexity, %", "p")
FIELDS = (
    *("corpus", "protocol", "stride", "length", "targets", "targets_hash", "base", "other", "base_nll", "other_nll"),
    *("difference", "low", "high", "error", "p", "p_adjusted", "p_floor", "seeds", "documents", "primary", "verdict"),
)


def sections(found: list[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """Yield (title, comparisons): the primary ones, then the others of each text, protocol and set of targets."""
    primaries = [c for c in found if c.primary]
    for index, members in enumerate([primaries, *by_family([c for c in found if not c.primary])]):
        key, targets = members[0].key, sorted({c.targets for c in members})
        counts = f"{targets[0]:,}" if len(targets) == 1 else f"{targets[0]:,} to {targets[-1]:,}"
        parts = ["other lengths" if index else "primary", family_title(key), f"base {members[0].base}"]
        yield " · ".join([*parts, f"{counts} targets {key.family[-1][:8]}".rstrip()]), members


def by_family(found: list[Any]) -> list[list[Any]]:
    """Return objects with a `key`, grouped by family; of several sets of targets, shorter lengths come first."""
    families = grouped(found, lambda one: one.key.family)
    return sorted(families, key=lambda members: (members[0].key.family[:4], max(m.key.length for m in members)))


def family_title(key: Key) -> str:
    parts = [key.protocol, f"stride {key.stride}" if key.stride else "", f"of {key.corpus}" if key.corpus else ""]
    return " · ".join(part for part in parts if part)


def print_comparisons(found: list[Comparison], notes: list[str], console: "Console") -> None:
    from rich.text import Text

    for grid in grids(found):
        grid.show(console)
    for line in [*footer(found), *notes]:
        console.print(Text(line, style="dim"))


def grids(found: list[Comparison]) -> Iterator[Grid]:
    """Yield a table for each text, protocol and set of targets. Only the first line of a curve has its name."""
    for title, members in sections(found):
        names = [c.other for c in members]
        shown = ["" if i and names[i - 1] == name else name for i, name in enumerate(names)]
        rows = [[name, *cells(c)] for name, c in zip(shown, members, strict=True)]
        adjusted = "p (Holm)" if members[0].primary else "p (joint)"
        yield Grid(("curve", *HEAD, adjusted, "seeds", "verdict"), rows, names=2, title=title)


def comparison_markdown(found: list[Comparison], notes: list[str]) -> str:
    """Return the comparisons and notes as Markdown, with the content of the terminal."""
    parts = [f"# {escape(found[0].base)}, compared"]
    for grid in grids(found):
        parts += [f"## {escape(grid.title)}", grid.markdown()]
    parts += [escape(line) for line in footer(found)]
    if notes:
        parts.append("\n".join(f"- {escape(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def comparisons_to_csv(found: list[Comparison]) -> str:
    """Return the comparisons as CSV with columns FIELDS: losses in nats per token, None as an empty field."""
    rows = []
    for c in found:
        row = {**dict.fromkeys(FIELDS), **c.key._asdict(), "base": c.base, "other": c.other, "targets": c.targets}
        if d := c.difference:
            row |= {**vars(d), "difference": d.value, "base_nll": c.losses[0], "other_nll": c.losses[1]}
        row |= {"seeds": len(c.seeds), "p_adjusted": c.adjusted, "p_floor": c.floor}
        row |= {"primary": int(c.primary), "verdict": c.word}
        rows.append({name: row[name] for name in FIELDS})
    return csv_text(FIELDS, rows)


def cells(c: Comparison) -> list[str]:
    """Return the cells of a comparison under HEAD."""
    d = c.difference
    if d is None or c.floor is None:
        return [str(c.key.length), *["–"] * 6, str(len(c.seeds)), c.word]
    return [
        str(c.key.length),
        digits(math.exp(c.losses[1])),
        digits(math.exp(c.losses[0])),
        bracketed([d.value, d.low, d.high], "+.4f"),
        bracketed([None if x is None else percent(x) for x in (d.value, d.low, d.high)], "+.2f"),
        p_value(d.p, c.floor),
        p_value(c.adjusted, c.floor),
        str(d.seeds),
        c.word,
    ]


def bracketed(numbers: Sequence[float | None], form: str) -> str:
    """Return a value with its interval, if any."""
    value, *bounds = [None if x is None else f"{x:{form}}" for x in numbers]
    return f"{value} [{bounds[0]}, {bounds[1]}]" if bounds[0] else f"{value}"


def p_value(p: float | None, floor: float) -> str:
    return "–" if p is None else f"<{floor:g}" if p < floor else f"{p:.4f}"


def footer(found: list[Comparison]) -> list[str]:
    """Return lines that say what the numbers mean and what the intervals cover."""
    estimates = [c.difference for c in found if c.difference is not None]
    lines = [
        "Differences are of the mean loss, the curve's less the base's, paired by target: below 0 the curve is better.",
        "The primary comparison of each pair counts first: p (Holm) holds for all compared curves together, p (joint) "
        f"for all other lengths of a curve and protocol. Below {ALPHA:.2f} there is a verdict, from three seeds on. "
        "p and what is in brackets hold for one curve and length alone. After < stands the least p that so few seeds "
        "support.",
    ]
    if not estimates:
        return lines
    seeds, documents = ({getattr(d, name) for d in estimates} for name in ("seeds", "documents"))
    if seeds == documents == {1}:
        return [*lines, "One seed and one document: no interval and no verdict."]
    both = ((tuple(seeds), "seed"), (tuple(documents), "document"))
    over = [counted(counts, unit) for counts, unit in both if counts != (1,)]
    lines.append(f"In brackets: the 95 % interval over {' and '.join(over)}.")
    if 1 in seeds:
        lines.append("One seed: says nothing about other trainings.")
    if 1 in documents:
        lines.append("One document: says nothing about other text.")
    return lines


def print_power(
    base: str,
    other: str,
    found: list[Power],
    difference: float,
    power: float,
    notes: list[str],
    console: "Console",
) -> None:
    from rich.text import Text

    for members in by_family(found):
        title = f"{family_title(members[0].key)} · {other} less {base}, nats per token · power {power:g}"
        head = ["length", "difference", "sd between seeds", "error from documents", "detectable", "with endless seeds"]
        head += [f"seeds for {difference:g}", "seeds for the difference", ""]
        Grid(head, [power_cells(p, difference) for p in members], title=title).show(console)
    counts = tuple({len(p.seeds) for p in found})
    lines = [
        f"Detectable: the smallest true difference that {counted(counts, 'seed')} show with a probability of "
        f"{power:g}, by the test of posexp compare at {ALPHA:.2f} for one length alone.",
        "More seeds do not remove the error from documents; where it hides a difference, more documents are needed "
        "(a larger split, or eval.targets where it bounds them).",
    ]
    if any(p.documents == 1 for p in found):
        lines.append("One document: says nothing about other text.")
    for line in [*lines, *notes]:
        console.print(Text(line, style="dim"))


def power_cells(p: Power, difference: float) -> list[str]:
    if p.difference is None:
        return [str(p.key.length), *["–"] * 7, p.word]
    parts = [p.sd, p.documents_error, p.detectable, p.limit]
    return [
        str(p.key.length),
        f"{p.difference:+.4f}",
        *("–" if part is None else f"{part:.4f}" for part in parts),
        seeds_of(p, p.needed, difference),
        seeds_of(p, p.needed_observed, p.difference),
        p.word,
    ]


def seeds_of(p: Power, needed: int | None, difference: float) -> str:
    if needed is not None:
        return f"{needed:,}"
    return "–" if p.limit is not None and p.limit >= abs(difference) else f"more than {MOST_SEEDS:,}"
