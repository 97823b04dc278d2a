"""LaTeX tables with booktabs. Names in scripts other than Latin require LuaLaTeX or XeLaTeX."""

from posexp.output.text import one_line
from posexp.report.table import failure, interval, starred, trained_at
from posexp.report.tables import Table, facts, listed

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\`{}",
    "[": "{[}",  # after \\, [ and * would be arguments
    "]": "{]}",
    "*": "{*}",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
}


def latex(shown: list[Table]) -> str:
    """Return a file for \\input. The document's preamble needs \\usepackage{booktabs}."""
    return (
        "\n\n".join(["% \\usepackage{booktabs}", *(latex_table(table) for table in shown if not table.drawn_only)])
        + "\n"
    )


def latex_table(table: Table) -> str:
    """Return a table of values above their intervals, with the best value of each length in bold."""
    several = len(table.train_lengths) > 1
    heads = ["", *(["trained at"] if several else []), *(starred(n, table.train_lengths) for n in table.lengths)]
    rows = []
    for curve in table.curves:
        first = [escape(curve), *([listed(table.trained[curve])] if several else [])]
        rows.append(latex_line([*first, *(value_of(table, curve, length) for length in table.lengths)]))
        intervals = [interval_of(table, (curve, length)) for length in table.lengths]
        if any(intervals):
            rows.append(latex_line([*("" for _ in first), *intervals]))
    name = "-".join(filter(None, [table.protocol, str(table.stride or ""), table.targets_hashes[0][:8]]))
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(caption(table))}}}",
            rf"  \label{{tab:{''.join(letter if letter.isalnum() else '-' for letter in name)}}}",
            r"  \small",
            rf"  \begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"    \toprule",
            latex_line(heads),
            r"    \midrule",
            *rows,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def caption(table: Table) -> str:
    best = "highest" if table.measure.high_is_good else "lowest"
    parts = [f"{table.title}: {table.measure.axis}, the {best} of each length bold."]
    if any(value.low is not None for value in table.values.values()):
        parts.append(
            f"In brackets: the range of the seeds, or the 95 % interval over {table.measure.over} if there is one seed."
        )
    about = f"{facts(table)} · {trained_at(table)}"
    return " ".join([*parts, f"{about[:1].upper()}{about[1:]} (*)."])


def best_of(table: Table, length: int) -> str | None:
    """Return the best value of a column as formatted, so that equal text counts as a tie."""
    values = [table.values[curve, length].value for curve in table.curves if (curve, length) in table.values]
    if not values:
        return None
    return table.measure.write(max(values) if table.measure.high_is_good else min(values))


def value_of(table: Table, curve: str, length: int) -> str:
    missing = escape(failure(table, (curve, length)))
    if (curve, length) not in table.values:
        return missing or "--"
    text = table.measure.write(table.values[curve, length].value)
    shown = rf"\textbf{{{text}}}" if text == best_of(table, length) else text
    return rf"{shown}\,{{\scriptsize ({missing})}}" if missing else shown


def interval_of(table: Table, key: tuple[str, int]) -> str:
    bounds = interval(table, key)
    return rf"{{\scriptsize [{bounds[0]},\,{bounds[1]}]}}" if bounds else ""


def latex_line(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def escape(text: str) -> str:
    return "".join(ESCAPES.get(letter, letter) for letter in one_line(text))
