"""Rows with known numbers, and the tables and pictures that posexp report makes of them."""

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zlib import crc32

import numpy as np
from rich.console import Console

from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.rows import Row, sums_of
from posexp.evaluation.statistics import Estimate, Ratio
from posexp.evaluation.verdicts import Place, Verdict
from posexp.output.style import Look, looks_of
from posexp.report import COLUMNS, Table, tables, write_report
from posexp.report.metric import PPL


def looks(shown: list[Table]) -> dict[str, Look]:
    return looks_of(curve for table in shown for curve in table.curves)


def row(run: str, length: int, ppl: float | None, status: str = "ok", **other: Any) -> Row:
    made: dict[str, Any] = dict.fromkeys(COLUMNS)
    made |= {"run": run, "scheme": run.split("-")[0], "seed": int(run.split("-s")[1][0]), "train_length": 128}
    made |= {"length": length, "protocol": "same_targets", "window": "full", "targets": 2048}
    made |= {"targets_hash": "ab12cd34ef56", "kernel_path": "sdpa", "crossing_share": 0.0, "status": status}
    if ppl is not None:
        made |= {"nll": math.log(ppl), "ppl": ppl, "ci_low": ppl * 0.9, "ci_high": ppl * 1.1}
    return Row.of(made | other)


def labels(rows: list[Row]) -> dict[str, str]:
    return {r.run: r.scheme or "" for r in rows}


def with_sums(row: Row, noise: float = 0.001) -> Row:
    """The row with losses of 40 targets in 8 documents that have its mean: documents differ by far more than `noise`,
    which is how much each of them differs between rows."""
    if row.status != "ok":
        return row
    draws = np.random.default_rng(crc32(f"{row.run} {row.length} {row.control}".encode()))
    level_D = np.linspace(-1, 1, 8) + noise * draws.normal(size=8)
    document_N = np.repeat(np.arange(8), 5)
    return replace(row, document_sums=sums_of(row.loss + (level_D - level_D.mean())[document_N], document_N))


def paired(rows: list[Row], curve_of: dict[str, str] | None = None, **options: Any) -> Pairs:
    return Pairs([*map(with_sums, rows)], labels(rows) if curve_of is None else curve_of, **options)


def screen(width: int = 200) -> Console:
    return Console(file=io.StringIO(), width=width)


def seen(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def written(rows: list[Row], folder: Path, **options: Any) -> tuple[str, str, str]:
    """What was printed, table.md and the SVG of the headline's picture."""
    console = screen()
    write_report(rows, options.pop("curve_of", labels(rows)), folder, console=console, **options)
    headline = next(path for name in ("curves", "ranking") if (path := folder / f"{name}.svg").exists())
    return seen(console), (folder / "table.md").read_text(), headline.read_text()


def picture_words(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


SEEDS = [row("rope-s0-aa", 128, 20.0), row("rope-s1-aa", 128, 22.0), row("rope-s2-aa", 128, 30.0)]


MIXED = [
    *SEEDS,
    row("rope-s0-aa", 256, 40.0),
    row("rope-s1-aa", 256, None, "non-finite"),
    row("rope-s2-aa", 256, 90.0),
    row("learned-s0-bb", 128, 25.0),
    row("learned-s0-bb", 256, None, "undefined"),
    row("alibi-s0-cc", 128, 21.0),
]


def task(run: str, size: int, share: float | None, **other: Any) -> Row:
    made = {"protocol": "exact_match", "stride": None, "train_length": 16, "exact_match": share, "documents": 10}
    return row(run, size, None if share is None else 1.5, "ok" if share is not None else "undefined", **made | other)


def about(value: float, by: float = 0.01, seeds: int = 3) -> Estimate:
    return Estimate(value, value - by, value + by, by / 2, 0.03, seeds, 8)


def verdict(
    curve: str,
    length: int,
    word: str,
    cropped: float | None = None,
    targets: tuple[str, int | None] = ("ab12cd34ef56", None),
    captured: Ratio | None = None,
    **others: float,
) -> Verdict:
    estimates = {name: about(value) for name, value in others.items()}
    change = None if cropped is None else about(cropped)
    place = Place(curve, length, *targets)
    return Verdict(place, word, cropped=change, captured=captured, documents=8, **estimates)


def judged(rows: list[dict], verdicts: list[Verdict]) -> list[Table]:
    return tables(rows, labels(rows), PPL, verdicts)


@dataclass(frozen=True)
class Targets:
    """A set on which perplexities are about `ppl`, far from those on any other; `growth` is what a curve's is times at
    every doubling past training, `words` the verdicts that this makes."""

    protocol: str
    targets_hash: str
    ppl: float
    lengths: tuple[int, ...]
    growth: dict[str, float]
    words: dict[str, str]
    seeds: int = 3
    stride: int | None = None
    documents: int | None = 8
    targets: int = 900

    def rows(self, length: int) -> list[dict[str, Any]]:
        names = ("protocol", "targets_hash", "stride", "documents", "targets")
        place: dict[str, Any] = {name: getattr(self, name) for name in names}
        return [
            row(f"{curve}-s{seed}-aa", length, self.ppl * growth ** max(0, math.log2(length / 128)), **place)
            for curve, growth in self.growth.items()
            for seed in range(self.seeds)
            if length in self.lengths
        ]

    def owns(self, number: float) -> bool:
        return self.ppl / 2 < number < self.ppl * 5


FAR_LENGTHS = (16, 64, 128, 256, 512, 1024)


SETS = [
    Targets(
        "same_targets", "aa00near", 10.0, (64, 128, 256, 512), {"alibi": 0.95, "rope": 1.3},
        {"alibi": "uses", "rope": "degrades"}, targets=8192,
    ),
    Targets(
        "same_targets", "bb00far0", 100.0, FAR_LENGTHS, {"alibi": 1.3, "rope": 0.95},
        {"alibi": "collapses", "rope": "uses"}, documents=3,
    ),
    Targets(
        "same_targets", "cc00old0", 1e3, (128, 256), {"alibi": 1.0, "rope": 1.0},
        {"alibi": "unchanged", "rope": "unchanged"}, stride=32, documents=None,
    ),
    Targets("same_targets", "dd00lone", 1e4, (256, 512), {"alibi": 0.9, "rope": 1.5}, {}, seeds=1),
    Targets("nonoverlapping", "ee00non0", 1e5, (128, 256), {"alibi": 0.9, "rope": 1.5}, {}),
    Targets("sliding", "ff00slid", 1e6, (128, 256, 512), {"alibi": 0.9, "rope": 1.5}, {}, stride=32),
]  # fmt: skip


MIXED_SETS = [made for length in FAR_LENGTHS for of_set in SETS for made in of_set.rows(length)]


# A window control on the near set alone.
MIXED_SETS += [
    row(
        f"rope-s{seed}-aa", 512, 9.0, targets_hash="aa00near", control="window", control_of="full", window="sliding 128"
    )
    for seed in (0, 1, 2)
]
