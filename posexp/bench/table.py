"""The rows of a bench as tables for the terminal, Markdown and CSV."""

from posexp.bench.interleave import OK
from posexp.bench.rows import Row
from posexp.output.grid import Grid

NOTHING = "–"
LEGEND = (
    "× none: speed relative to the scheme none in the same rounds. × peer: relative to the fastest peer. MiB: peak "
    "memory of a pass above that of the process before the model was built. MFU: model FLOPs per second (6 or 2 for "
    "each weight and token, and causal attention) relative to a product of 2048 x 2048 matrices in the same process "
    "and rounds."
)


def bench_tables(rows: list[Row], with_peers: bool) -> list[Grid]:
    """Return a table for training and for each evaluation length, with contenders in order of training speed."""
    training = sorted((row for row in rows if row["what"] == "training"), key=lambda row: -(row["ratio_to_none"] or 0))
    length = training[0]["length"]
    headings = ["contender", "path", "parameters", "tokens/s", "quartiles", "× none", "× peer", "MiB", "MFU"]
    lines = []
    for row in training:
        quartiles = f"{row['lower_quartile']:,.0f} - {row['upper_quartile']:,.0f}" if row["lower_quartile"] else NOTHING
        figures = [speed(row), quartiles, two(row["ratio_to_none"]), two(row["ratio_to_fastest_peer"]), mib(row)]
        lines.append([row["contender"], row["path"] or NOTHING, whole(row["parameters"]), *figures, mfu_percent(row)])
    if not with_peers:
        headings.remove("× peer")
        lines = [line[:6] + line[7:] for line in lines]
    shown = [Grid(headings, lines, names=2, title=f"Training at {length:,} tokens")]
    lengths = list(dict.fromkeys(row["length"] for row in rows if row["what"] == "evaluation"))
    for L in lengths:
        there = {
            (row["kind"], row["contender"]): row for row in rows if (row["what"], row["length"]) == ("evaluation", L)
        }
        ordered = [there[row["kind"], row["contender"]] for row in training]
        lines = [
            [
                row["contender"],
                row["path"] or NOTHING,
                speed(row),
                two(row["ratio_to_none"]),
                mib(row),
                mfu_percent(row),
            ]
            for row in ordered
        ]
        heads = ["contender", "path", "tokens/s", "× none", "MiB", "MFU"]
        shown.append(Grid(heads, lines, names=2, title=f"Evaluation at {L:,} tokens"))
    return shown


def bench_markdown(shown: list[Grid]) -> str:
    return "\n\n".join([*(f"{table.title}\n\n{table.markdown()}" for table in shown), LEGEND]) + "\n"


def speed(row: Row) -> str:
    """Return the speed, or the status if there is none."""
    return whole(row["tokens_per_second"]) if row["status"] == OK else row["status"]


def whole(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def two(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def mib(row: Row) -> str:
    return NOTHING if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:,.0f}"


def mfu_percent(row: Row) -> str:
    return NOTHING if row["mfu"] is None else f"{row['mfu']:.0%}"
