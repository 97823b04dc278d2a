"""The titles of pictures, which state what was found. Verdicts and changes are those at the longest length."""

from dataclasses import replace

from posexp.evaluation.verdicts import TOO_FEW, WORDS
from posexp.output.figure import shortened
from posexp.report.metric import CHANGE, signed
from posexp.report.tables import Table, change_of, listed

NAMED = 4  # maximum number of curves that a title names for one verdict


def finding(table: Table, subject: str = "") -> str:
    """Return what was trained (`subject`), and what becomes of it: its verdicts, or the range of changes."""
    trained = f"trained at {listed(table.train_lengths)} tokens"
    about = f"{subject}, {trained}" if subject else trained.capitalize()
    parts = verdict_phrases(table) or change_phrases(table)
    first, last = table.train_lengths[0], max(table.lengths)
    where = (
        f"at {last / max(1, first):.3g} times that length" if len(table.train_lengths) == 1 else f"at {last:,} tokens"
    )
    return f"{about}: {where}, {'; '.join(parts)}" if parts else f"{about}: {table.title}"


def verdict_phrases(table: Table) -> list[str]:
    """Return a phrase such as "rope and xpos degrade" per word; [] without verdicts or with too few seeds."""
    last = max(table.lengths)
    curves_of: dict[str, list[str]] = {}
    for curve in table.curves:
        word = table.words.get((curve, last))
        if word == TOO_FEW:
            return []
        if word:
            curves_of.setdefault(word, []).append(curve)
    return [
        phrase(word, curves_of[word])
        for word in sorted(curves_of, key=lambda word: (*WORDS, word).index(word))
        if word in WORDS or len(curves_of) > 1
    ]


def phrase(word: str, curves: list[str]) -> str:
    if word.endswith("s") and " " not in word:  # a verb: uses, ignores, degrades, collapses
        context = " longer context" if word in ("uses", "ignores") else ""
        return f"{names(curves)} {word if len(curves) == 1 else word[:-1]}{context}"
    are = ":" if " " in word else " is" if len(curves) == 1 else " are"
    return f"{names(curves)}{are} {word}"


def names(curves: list[str]) -> str:
    if len(curves) > NAMED:
        return f"{len(curves)} curves"
    *first, last = map(shortened, curves)
    return f"{', '.join(first)} and {last}" if first else last


def change_phrases(table: Table) -> list[str]:
    """Return the range of the changes of perplexity; [] without changes."""
    last = max(table.lengths)
    found = {c: one.value for (c, n), one in as_changes(table).values.items() if n == last > min(table.trained[c])}
    return [f"perplexity changes by {span(found)}"] if found and not table.measure.whole else []


def span(found: dict[str, float]) -> str:
    """Return the lowest and highest of named changes in percent."""
    ends = sorted(found.items(), key=lambda item: item[1])
    return " to ".join(f"{signed(value)} % ({shortened(name)})" for name, value in dict.fromkeys((ends[0], ends[-1])))


def as_changes(table: Table) -> Table:
    """Return the table with changes of perplexity from the own training length, or as it is if there are none."""
    cells = {key: replace(cell, change=cell.change or change_of(table, *key, {})) for key, cell in table.cells.items()}
    found = replace(table, cells=cells, measure=CHANGE)
    longer = any(length > min(table.trained[curve]) for curve, length in found.values)
    return found if longer and not table.measure.whole else table
