"""Rows with known numbers become the tables, files and picture that posexp report promises."""

import csv
import html
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from support.reports import (
    MIXED,
    MIXED_SETS,
    SEEDS,
    SETS,
    judged,
    labels,
    paired,
    picture_words,
    row,
    screen,
    seen,
    task,
    verdict,
    with_sums,
    written,
)

from posexp.cli.arguments import split_flags
from posexp.config.commands import ReportCommand
from posexp.config.sections import Measure as Choice
from posexp.config.sections import TrainConfig
from posexp.errors import Misuse, RunFailed
from posexp.evaluation.contrasts import differences
from posexp.evaluation.rows import Row, rows_to_csv, sums_of
from posexp.evaluation.statistics import Estimate, Ratio, estimate
from posexp.evaluation.verdicts import JUDGED, TOO_FEW, Place, Verdict
from posexp.output.grid import latex_escape as escape
from posexp.report import COLUMNS, Table, option_sweep, tables, verdict_table, write_report
from posexp.report.answer import answer
from posexp.report.command import check_oracle, report
from posexp.report.fairness import TITLE as FAIRNESS
from posexp.report.metric import (
    BITS_PER_BYTE,
    CHANGE,
    EXACT_MATCH,
    METRICS,
    NLL,
    PPL,
    TOKEN_ACCURACY,
    Metric,
    digits,
    percent,
    signed,
)
from posexp.report.page import page as page_of
from posexp.report.table import how_to_read, print_tables, report_markdown


def on_screen(shown: list[Table], width: int = 200, all_sets: bool = False) -> str:
    console = screen(width)
    print_tables(shown, console, all_sets)
    return seen(console)


def pipes(text: str) -> list[list[list[str]]]:
    """The cells of every pipe table in a Markdown text, unescaped."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.strip().split("\n")]
            found.append([[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in line] for line in lines])
    return found


def test_a_cell_over_seeds_is_exp_of_the_mean_nll_between_the_lowest_and_the_highest_seed() -> None:
    (table,) = tables(SEEDS, labels(SEEDS))
    cell = table.cells["rope", 128]
    assert cell.nll == pytest.approx((math.log(20) + math.log(22) + math.log(30)) / 3)
    assert cell.ppl == pytest.approx((20 * 22 * 30) ** (1 / 3))
    assert (cell.low, cell.high, cell.spread, cell.seeds) == (pytest.approx(20), pytest.approx(30), True, 3)


def test_a_cell_of_one_seed_has_the_interval_over_documents() -> None:
    (table,) = tables(MIXED, labels(MIXED))
    cell = table.cells["learned", 128]
    assert (cell.ppl, cell.low, cell.high) == (pytest.approx(25), pytest.approx(22.5), pytest.approx(27.5))
    assert not cell.spread


def test_a_failed_seed_is_neither_averaged_in_nor_dropped() -> None:
    (table,) = tables(MIXED, labels(MIXED))
    cell = table.cells["rope", 256]
    assert cell.ppl == pytest.approx(60) and (cell.low, cell.high) == (pytest.approx(40), pytest.approx(90))
    assert cell.failure == "2/3 ok, non-finite"
    assert table.cells["learned", 256].ppl is None and table.cells["learned", 256].failure == "undefined"
    assert ("alibi", 256) not in table.cells


def test_a_row_that_claims_to_be_ok_without_a_finite_perplexity_is_non_finite() -> None:
    for nll in (None, math.nan, math.inf, 1e4):
        rows = [row("rope-s0-aa", 128, None, nll=nll)]
        assert tables(rows, labels(rows))[0].cells["rope", 128].failure == "non-finite"


def test_the_last_row_of_a_run_and_length_counts() -> None:
    rows = [row("rope-s0-aa", 128, 50.0), row("rope-s0-aa", 128, 20.0)]
    cell = tables(rows, labels(rows))[0].cells["rope", 128]
    assert cell.ppl == pytest.approx(20) and cell.seeds == 1


def test_different_targets_never_share_a_table() -> None:
    rows = [
        *SEEDS,
        row("alibi-s0-cc", 128, 21.0, targets_hash="ffff0000"),
        row("rope-s0-aa", 128, 7.0, targets_hash="ffff0000"),
    ]
    first, second = tables(rows, labels(rows))
    assert first.targets_hashes == ("ab12cd34ef56",) and first.curves == ("rope",)  # most runs first
    assert second.targets_hashes == ("ffff0000",) and second.curves == ("alibi", "rope")
    assert first.cells["rope", 128].low == pytest.approx(20) and second.cells["rope", 128].ppl == pytest.approx(7)


ONE = row("rope-s0-aa", 128, 20.0, documents=16, targets=8192)
OTHER = replace(ONE, targets_hash="ffff0000")


@pytest.mark.parametrize(
    ("others", "first"),
    [
        ([replace(OTHER, documents=90, targets=9999, length=64), row("rope-s1-aa", 128, 20.0)], "ab12cd34ef56"),
        ([replace(OTHER, documents=17, targets=100, length=512)], "ffff0000"),
        ([replace(OTHER, documents=15, targets=9999, length=64)], "ab12cd34ef56"),
        ([replace(OTHER, documents=None, targets=9999, length=64)], "ab12cd34ef56"),
        ([replace(OTHER, targets=8193, length=512)], "ffff0000"),
        ([replace(OTHER, targets=8191, length=64)], "ab12cd34ef56"),
        ([replace(OTHER, length=64)], "ffff0000"),
        ([replace(OTHER, length=256)], "ab12cd34ef56"),
        ([OTHER], "ffff0000"),
        ([OTHER, replace(ONE)], "ab12cd34ef56"),
    ],
    ids=[
        *("runs", "documents", "fewer documents", "documents unknown", "targets", "fewer targets", "shorter", "longer"),
        *("latest", "again"),
    ],
)
def test_of_several_sets_most_runs_then_documents_targets_the_shorter_and_the_latest(
    others: list[dict], first: str
) -> None:
    rows = [ONE, *others]
    assert tables(rows, labels(rows))[0].targets_hashes == (first,)


def test_strides_and_protocols_never_share_a_table_and_the_headline_is_first() -> None:
    rows = [
        row("rope-s0-aa", 128, 20.0, protocol="per_position"),
        row("rope-s0-aa", 128, 20.0, protocol="sliding"),
        row("rope-s0-aa", 128, 20.0, protocol="nonoverlapping"),
        row("rope-s0-aa", 128, 20.0, stride=64),
        row("rope-s0-aa", 128, 20.0, stride=32),
    ]
    found = tables(rows, labels(rows))
    assert [(t.protocol, t.stride) for t in found] == [
        ("same_targets", 32),
        ("same_targets", 64),
        ("nonoverlapping", None),
        ("sliding", None),
        ("per_position", None),
    ]
    headings = re.findall("^## (.*)$", report_markdown(found), re.MULTILINE)
    assert len(set(headings)) == 5 and r"same\_targets · targets ab12cd34 · stride 64" in headings


def test_other_text_than_the_runs_own_is_never_the_headline() -> None:
    other = {"corpus": "proofs", "targets_hash": "eeee0000"}
    rows = [row("rope-s0-aa", 128, 20.0), row("rope-s0-aa", 128, 21.0, protocol="sliding")]
    rows += [row(f"{name}-s0-aa", 128, 900.0, **other) for name in ("rope", "alibi")]
    found = tables(rows, labels(rows))
    assert [(t.protocol, t.corpus) for t in found] == [
        ("same_targets", ""),
        ("sliding", ""),
        ("same_targets", "proofs"),
    ]


def test_windows_and_transforms_are_curves_beside_the_run_as_trained() -> None:
    rows = [
        row("rope-s0-aa", 128, 20.0),
        row("rope-s0-aa", 128, 21.0, window="bca 64"),
        row("rope-s0-aa", 128, 22.0, transform="yarn", transform_settings="yarn(factor=1)"),
        row("rope-s0-aa", 128, 23.0, window="bca 64", transform="yarn"),
        row("rope-s0-bb", 128, 24.0, window="sliding 64", trained_window="sliding 64"),
        row("rope-s0-bb", 128, 25.0, window="full", trained_window="sliding 64"),
    ]
    (table,) = tables(rows, {"rope-s0-aa": "rope", "rope-s0-bb": "rope-sliding"})
    ppl = {curve: cell.ppl for (curve, _), cell in table.cells.items()}
    assert ppl == pytest.approx(
        {
            "rope": 20.0,
            "rope · window bca 64": 21.0,
            "rope · yarn": 22.0,
            "rope · window bca 64 · yarn": 23.0,
            "rope-sliding": 24.0,
            "rope-sliding · window full": 25.0,
        }
    )


def test_the_markdown_table_parses_back_to_the_numbers(tmp_path: Path) -> None:
    _, page, _ = written(MIXED, tmp_path)
    assert pipes(page) == [
        [
            ["curve", "128*", "256"],
            ["---", "---:", "---:"],
            ["alibi", "21.00<br>[18.90, 23.10]", "–"],
            ["learned", "25.00<br>[22.50, 27.50]", "undefined"],
            ["rope", "23.63<br>[20.00, 30.00]", "60.00<br>[40.00, 90.00]<br>2/3 ok<br>non-finite"],
        ]
    ]
    assert "2,048 targets ab12cd34 · 1 to 3 seeds · trained at 128 tokens" in page
    assert "the 95 % interval over documents, by a bootstrap" in page


@pytest.mark.slow
def test_the_terminal_shows_every_cell_however_narrow(tmp_path: Path) -> None:
    rows = MIXED + [row("rope-s0-aa", 2**e, 1.5**e) for e in range(9, 15)]
    for width in (200, 60, 30):
        console = screen(width)
        write_report(rows, labels(rows), tmp_path, console=console)
        shown = seen(console)
        for text in ("128*", "60.00", "[40.00, 90.00]", "2/3 ok", "non-finite", "undefined", "16384", "291.9"):
            assert text in shown, (width, text)
        assert "…" not in shown


def test_training_lengths_that_differ_are_told_per_curve(tmp_path: Path) -> None:
    rows = [row("rope-s0-aa", 128, 20.0), row("alibi-s0-cc", 128, 20.0, train_length=64)]
    printed, page, _ = written(rows, tmp_path)
    assert pipes(page)[0][2][:2] == ["alibi", "64"] and pipes(page)[0][3][:2] == ["rope", "128"]
    assert "trained at 64, 128 tokens" in printed


def test_a_long_failure_is_short_in_its_cell_and_told_in_full_below(tmp_path: Path) -> None:
    rows = [row("rope-s0-aa", 128, None, "failed: the card\nfell off the bus")]
    printed, page, svg = written(rows, tmp_path)
    assert pipes(page)[0][2] == ["rope", "failed"]
    assert "rope-s0-aa at 128: failed: the card fell off the bus" in printed and "fell off the bus" in page
    assert "rope: failed" in picture_words(svg)


def test_the_csv_parses_back_with_columns_then_extras_and_empty_for_none(tmp_path: Path) -> None:
    rows = [
        row("rope-s0-aa", 128, 20.0, note='a "quoted", one'),
        row("learned-s0-bb", 256, None, "undefined", documents=3, cards=2),
    ]
    written(rows, tmp_path)
    with open(tmp_path / "rows.csv", newline="") as file:
        reader = csv.DictReader(file)
        back = list(reader)
    assert reader.fieldnames == [*COLUMNS, "note", "cards"] and "documents" in COLUMNS
    assert float(back[0]["nll"]) == rows[0].nll and back[0]["note"] == 'a "quoted", one'
    assert back[1]["ppl"] == "" and back[1]["status"] == "undefined" and back[1]["documents"] == "3"
    assert back[0]["documents"] == "" and back[1]["cards"] == "2"


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    names = ("rows.csv", "verdicts.csv", "table.md", "table.tex", "curves.png", "curves.svg")
    for folder in ("a", "b"):
        paths = write_report(MIXED, labels(MIXED), tmp_path / folder, console=screen())
        assert paths == [tmp_path / folder / name for name in names]
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")
    other = [*MIXED[:-1], row("alibi-s0-cc", 128, 35.0)]
    write_report(other, labels(other), tmp_path / "b", console=screen())
    for name in set(names) - {"verdicts.csv"}:
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [row("rope-s0-aa", 128, 20.0)],
        [row("rope-s0-aa", 1, 1.0, ci_low=None, ci_high=None)],
        [
            row("rope-s0-aa", 128, 20.0, ci_low=math.nan, ci_high=math.inf),
            row("rope-s0-aa", 256, 20.0, ci_high=math.inf),
        ],
        [row("rope-s0-aa", n, None, "out of memory") for n in (128, 256)],
        [row("rope-s0-aa", 128, math.exp(699.0)), row("rope-s0-aa", 256, 20.0)],
        [row("rope-s0-aa", n, 20.0 + n, protocol="per_position") for n in range(0, 300)],
        [row("rope-s0-aa", 128, 20.0, targets_hash=f"h{i}") for i in range(9)],
        [row(f"rope-s0-{i}", 128, None if i % 2 else 20.0, "undefined" if i % 2 else "ok") for i in range(40)],
        [row("rope-s0-aa", n, 20.0, train_length=0) for n in (64, 128)],
        [row("rope-s0-aa", n, math.exp(3.0 + n), train_length=1) for n in (1, 2, 600)],
    ],
    ids=[
        "one point",
        "length one",
        "no interval",
        "all failed",
        "huge",
        "positions",
        "many target sets",
        "many curves",
        "trained at nothing",
        "exploding",
    ],
)
def test_odd_shapes_are_reported_without_a_warning(rows: list[dict], tmp_path: Path) -> None:
    curve_of = {r.run: r.run for r in rows}
    _, page, svg = written(rows, tmp_path, curve_of=curve_of, pairs=paired(rows, curve_of))
    assert set(curve_of) <= {word.partition(": ")[0] for word in picture_words(svg)}
    assert page.startswith("# ") and (tmp_path / "others.svg").exists() == (len(tables(rows, curve_of)) > 1)


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    names = ["_hidden", "$10^4$", "a<b>&c", "x|y*z*", "[bold]odd[/bold]", r"back\slash", "名前", "lone $"]
    rows = [row(f"r{i}-s0-aa", n, 20.0 + i) for i in range(len(names)) for n in (128, 256)]
    curve_of = {f"r{i}-s0-aa": name for i, name in enumerate(names)}
    printed, page, svg = written(rows, tmp_path, curve_of=curve_of, pairs=paired(rows, curve_of))
    assert {line[0] for line in pipes(page)[0][2:]} == {line[0] for line in pipes(page)[1][2:]} == set(names)
    assert set(names) <= set(picture_words(svg))
    assert all(name in printed for name in names)
    assert "<b>" not in re.sub(r"\\<", "", page) and r"\$10^4\$" in page


def test_numbers_keep_four_digits_and_huge_ones_two() -> None:
    shown = [digits(x) for x in (1.0, 21.4, 9.99996, 174.0, 1532.4, 9999.4, 9999.6, 123456.0, 1e300)]
    assert shown == ["1.000", "21.40", "10.000", "174.0", "1532", "9999", "1.0e+04", "1.2e+05", "1.0e+300"]


def test_positions_are_drawn_and_stored_but_not_tabled(tmp_path: Path) -> None:
    rows = SEEDS + [row("rope-s0-aa", n, 30.0, protocol="per_position") for n in range(1, 200)]
    shown, page, svg = written(rows, tmp_path)
    assert "per_position · 1 to 199 · 2,048 targets" in shown and len(pipes(page)) == 1
    assert r"## per\_position · targets ab12cd34" in page and "too many for a table: the pictures and rows.csv" in page
    assert "Perplexity by position" in picture_words((tmp_path / "others.svg").read_text())
    assert "Perplexity by position" not in picture_words(svg)
    assert (tmp_path / "rows.csv").read_text().count("per_position") == 199
    shown, page, svg = written(rows[3:], tmp_path)
    assert "too many for a table: the pictures and rows.csv" in shown and not pipes(page)
    assert "Perplexity by position" in picture_words(svg)


def test_no_rows_is_a_misuse_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="posexp eval"):
        write_report([], {}, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_written_fails_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFailed, match="cannot write the report into") as caught:
            write_report(SEEDS, labels(SEEDS), folder, console=screen())
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_file_that_cannot_be_replaced_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "table.md").mkdir()
    with pytest.raises(RunFailed, match="cannot write the report into"):
        write_report(SEEDS, labels(SEEDS), tmp_path, console=screen())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_importing_the_report_imports_neither_matplotlib_nor_rich_nor_torch() -> None:
    program = "import sys, posexp.report; print([m for m in ('matplotlib', 'rich', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_report(SEEDS, labels(SEEDS), tmp_path, console=screen())
    assert dict(matplotlib.rcParams) == before


def test_the_page_is_the_same_whatever_the_console(tmp_path: Path) -> None:
    write_report(MIXED, labels(MIXED), tmp_path, console=screen(40))
    assert (tmp_path / "table.md").read_text() == report_markdown(tables(MIXED, labels(MIXED)))


def shown_by(measure: Metric, *rows: dict) -> dict[tuple[str, int], tuple]:
    """(value, low, high) of every cell."""
    (table,) = tables(list(rows), labels(list(rows)), measure=measure)
    return {key: (value.value, value.low, value.high) for key, value in table.values.items()}


def test_every_measure_gives_its_own_number_and_interval() -> None:
    one = row("rope-s0-aa", 128, math.e**3, bits_per_byte=1.5)  # of half as many bits a byte as nats a token
    key = ("rope", 128)
    low, high = 3 + math.log(0.9), 3 + math.log(1.1)
    assert shown_by(PPL, one)[key] == pytest.approx((math.e**3, 0.9 * math.e**3, 1.1 * math.e**3))
    assert shown_by(NLL, one)[key] == pytest.approx((3, low, high))
    assert shown_by(BITS_PER_BYTE, one)[key] == pytest.approx((1.5, low / 2, high / 2))
    other = row("rope-s1-aa", 128, math.e**4, bits_per_byte=2.0)
    assert shown_by(NLL, one, other)[key] == pytest.approx((3.5, 3, 4))
    assert shown_by(BITS_PER_BYTE, one, other)[key] == pytest.approx((1.75, 1.5, 2))
    assert shown_by(NLL, row("rope-s0-aa", 128, 2.0, ci_low=None))[key] == (pytest.approx(math.log(2)), None, None)


def test_a_seed_without_bytes_leaves_a_cell_without_bits_per_byte() -> None:
    rows = [row("rope-s0-aa", 128, 20.0, bits_per_byte=1.5), row("rope-s1-aa", 128, 20.0)]
    assert shown_by(BITS_PER_BYTE, *rows) == {}


@pytest.mark.parametrize("measure", [one for one in METRICS.values() if one != TOKEN_ACCURACY])
def test_a_task_is_shown_by_exact_match_whatever_the_measure(measure: Metric) -> None:
    found = shown_by(measure, task("rope-s0-aa", 16, 0.8), task("rope-s0-aa", 32, 0.0))
    assert found["rope", 16] == pytest.approx((80, 49.02, 94.33), abs=0.01)  # Wilson's interval of 8 of 10
    assert found["rope", 32] == pytest.approx((0, 0, 27.75), abs=0.01)  # and of 0 of 10
    found = shown_by(measure, task("rope-s0-aa", 16, 0.8), task("rope-s1-aa", 16, 0.6))
    assert found["rope", 16] == pytest.approx((70, 60, 80))


def test_token_accuracy_is_shown_where_it_is_wanted_and_by_place_in_the_answer() -> None:
    seeds = [task(f"rope-s{seed}-aa", 16, 0.0, accuracy=share) for seed, share in ((0, 0.5), (1, 0.75))]
    assert shown_by(TOKEN_ACCURACY, *seeds)["rope", 16] == pytest.approx((62.5, 50, 75))
    assert shown_by(TOKEN_ACCURACY, seeds[0])["rope", 16] == (50, None, None), (
        "tokens of one answer are not independent"
    )
    assert shown_by(PPL, task("rope-s0-aa", 16, None, protocol="by_index")) == {}
    placed = row("rope-s0-aa", 8, 2.0, protocol="by_index", accuracy=0.25)
    assert shown_by(PPL, placed)["rope", 8] == (25, None, None)


def test_tasks_and_text_share_a_report_and_each_says_how_to_read_it(tmp_path: Path) -> None:
    rows = [*SEEDS, task("rope-s0-aa", 16, 0.8), task("rope-s0-aa", 32, 0.2), task("alibi-s0-bb", 16, None)]
    _, page, svg = written(rows, tmp_path)
    assert pipes(page)[1][2:] == [
        ["alibi", "undefined", "–", "–"],
        ["rope", "80.0<br>[49.0, 94.3]", "20.0<br>[5.7, 51.0]", "–"],
    ]
    text, of_task = page.split("## exact")
    assert "Each cell is a perplexity" in text and "Each cell is the percentage of examples" in of_task
    assert "exact match in percent · 2,048 targets" in of_task and "trained up to size 16" in of_task
    assert "perplexity (log scale)" in picture_words(svg)
    words = picture_words((tmp_path / "others.svg").read_text())
    assert {"exact match in percent", "0", "20", "40", "60", "80", "100"} <= set(words)


def test_each_task_of_a_group_has_a_table_with_all_its_sizes() -> None:
    """Runs of one task score the same examples; those of another task of the same size stand in no table with them."""
    made = {"copy": ("rope-s0-aa", "alibi-s0-bb"), "addition": ("rope-s0-cc",), "reverse": ("rope-s0-dd",)}
    rows = [
        task(run, size, 0.5, targets_hash=f"{name}{size}")
        for size in (32, 8, 16)
        for name, runs in made.items()
        for run in runs
        if (name, size) != ("copy", 8)  # at this size another task has the most runs
    ]
    found = {table.curves: table for table in tables(rows, {})}
    assert set(found) == {tuple(sorted(runs)) for runs in made.values()}
    for name, runs in made.items():
        sizes = (16, 32) if name == "copy" else (8, 16, 32)
        table = found[tuple(sorted(runs))]
        assert table.lengths == sizes and set(table.targets_hashes) == {f"{name}{size}" for size in sizes}


def test_the_measure_is_named_and_drawn(tmp_path: Path) -> None:
    rows = [row("rope-s0-aa", n, math.exp(nll), bits_per_byte=nll / 2) for n, nll in ((128, 3.0), (256, 3.2))]
    printed, page, svg = written(rows, tmp_path, measure=NLL)
    assert pipes(page)[0][2] == ["rope", "3.000<br>[2.895, 3.095]", "3.200<br>[3.095, 3.295]"]
    assert page.startswith("# Loss by evaluation length") and "a mean loss in nats per token" in page
    assert "loss in nats per token · 2,048 targets" in printed
    assert "loss in nats per token" in picture_words(svg)  # beside its change
    _, page, svg = written(rows, tmp_path, measure=BITS_PER_BYTE)
    assert pipes(page)[0][2] == ["rope", "1.500<br>[1.447, 1.548]", "1.600<br>[1.547, 1.648]"]
    assert {"bits per byte", CHANGE.axis} <= set(picture_words(svg))


def test_a_table_without_the_measure_is_left_out_in_words(tmp_path: Path) -> None:
    rows = [*SEEDS, row("rope-s0-aa", 128, 20.0, protocol="sliding", bits_per_byte=1.5)]
    printed, page, _ = written(rows, tmp_path, measure=BITS_PER_BYTE)
    assert "same_targets is skipped: its rows lack bits per byte" in printed and len(pipes(page)) == 1
    with pytest.raises(Misuse, match="no row has exact match"):
        written(rows, tmp_path, measure=EXACT_MATCH)


def test_the_choices_of_the_command_line_are_the_measures_there_are() -> None:
    assert [choice.value for choice in Choice] == list(METRICS)


def swept(*values: float, key: str = "train.lr") -> tuple[list[Row], dict[str, str]]:
    """Rows of two schemes with two seeds at each value of an option, and their labels: alibi is best at 0.01, rope at
    the largest value, and one seed of rope has no loss at the smallest."""
    rows, curve_of = [], {}
    for scheme, best in (("alibi", 0.01), ("rope", max(values))):
        for i, value in enumerate(values):
            for seed in (0, 1):
                run = f"{scheme}-s{seed}-a{i}"
                nll = 3 + seed / 10 + abs(math.log10(value / best))
                lost = scheme == "rope" and i == seed == 0
                rows.append(row(run, 128, None, "non-finite") if lost else row(run, 128, math.exp(nll)))
                rows.append(row(run, 256, 999.0))
                curve_of[run] = f"{scheme} ({key}={value})"
    return rows, curve_of


@pytest.mark.slow
def test_a_sweep_over_one_number_is_a_table_and_a_picture_with_the_best_marked(tmp_path: Path) -> None:
    rows, curve_of = swept(0.001, 0.01, 0.1)
    printed, page, _ = written(rows, tmp_path, curve_of=curve_of)
    assert pipes(page)[-1] == [
        ["train.lr", "0.001", "0.01", "0.1", "best"],
        ["---", "---:", "---:", "---:", "---:"],
        ["alibi", "4.050<br>[4.000, 4.100]", "3.050<br>[3.000, 3.100]", "4.050<br>[4.000, 4.100]", "0.01"],
        ["rope", "1/2 ok, non-finite", "4.050<br>[4.000, 4.100]", "3.050<br>[3.000, 3.100]", "0.1 (edge)"],
    ]
    assert "Loss at the training length by train.lr" in printed and "0.1 (edge)" in printed
    words = picture_words((tmp_path / "sweep.svg").read_text())
    assert {"alibi", "rope", "train.lr (log scale)"} <= set(words)
    sweep = option_sweep.find_sweep(tables(rows, curve_of)[0])
    assert sweep
    axes = option_sweep.draw_sweep(sweep).axes[0]
    rings = [line.get_xydata()[0] for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [list(ring) for ring in rings] == [pytest.approx([0.01, 3.05]), pytest.approx([0.1, 3.05])]
    assert axes.get_xscale() == "log"
    written(SEEDS, tmp_path)
    assert not list(tmp_path.glob("sweep.*"))


def test_an_axis_of_a_sweep_within_a_decade_is_linear() -> None:
    sweep = option_sweep.find_sweep(tables(*swept(0.01, 0.02, key="fraction"))[0])
    assert sweep and sweep.option == "fraction"
    assert option_sweep.draw_sweep(sweep).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize(
    "curve_of",
    [
        {"a": "rope", "b": "alibi"},
        {"a": "rope (train.lr=0.1)", "b": "rope"},
        {"a": "rope (train.lr=0.1)", "b": "rope (base=500.0)"},
        {"a": "rope (train.lr=0.1, base=2)", "b": "rope (train.lr=0.2, base=2)"},
        {"a": "rope (layout=half)", "b": "rope (layout=interleaved)"},
        {"a": "rope (train.lr=0.1)", "b": "alibi (train.lr=0.1)"},
        {"a": "rope (train.lr=0.1.2)", "b": "rope (train.lr=1e999)"},
    ],
)
def test_runs_that_differ_otherwise_are_no_sweep(curve_of: dict[str, str]) -> None:
    rows = [row(f"{name}-s0-aa", 128, 20.0) for name in curve_of]
    (table,) = tables(rows, {f"{name}-s0-aa": label for name, label in curve_of.items()})
    assert option_sweep.find_sweep(table) is None


def test_titles_come_from_the_protocols_and_old_ones_keep_a_plain_one(tmp_path: Path) -> None:
    rows = [row("rope-s0-aa", 128, 20.0, protocol=name) for name in ("truncated", "bygone_way")]
    _, _, svg = written(rows, tmp_path)
    assert "Perplexity of truncated documents" in picture_words(svg)
    words = set(picture_words((tmp_path / "others.svg").read_text()))
    assert {"Perplexity, bygone_way", "length, tokens"} <= words


def test_controls_are_no_curves() -> None:
    controls = [
        row("rope-s0-aa", 256, 30.0, control="window", window="sliding 128", control_of="full"),
        row("rope-s0-aa", 256, 99.0, control="shuffled", control_of="full"),
    ]
    (table,) = tables([*SEEDS, row("rope-s0-aa", 256, 40.0), *controls], labels(SEEDS))
    assert table.curves == ("rope",) and table.cells["rope", 256].ppl == pytest.approx(40)


CURVES = ("alibi", "learned", "rope", "xpos")
LONGER = [row(f"{curve}-s0-aa", n, 20.0 + n / 100) for curve in CURVES for n in (128, 256, 512)]
ESTIMATES = ("cropped", "window", "shuffled", "eighth", "gain")
HALF = Ratio(0.5, 0.25, 0.75)
VERDICTS = [
    verdict("alibi", 256, "uses", math.log(0.9), shuffled=math.log(1.05), gain=-math.log(0.8), captured=HALF),
    verdict("alibi", 512, "ignores", 0.0),
    verdict("learned", 256, "undefined"),
    verdict("rope", 256, "collapses", math.log(1.5), window=math.log(1.4), shuffled=0.0),
    verdict("rope", 512, "degrades", math.log(1.1)),
    verdict("xpos", 256, "no headroom", 0.0),
    verdict("xpos", 512, "unclear", math.log(1.02)),
]


def test_a_verdict_marks_its_cell_and_one_line_says_what_marks_mean() -> None:
    shown = judged(LONGER, VERDICTS)
    page, printed = report_markdown(shown), on_screen(shown)
    cells = {line[0]: [cell.split("<br>")[0] for cell in line[1:]] for line in pipes(page)[0][2:]}
    assert cells == {
        "alibi": ["21.28", "22.56 ▼", "25.12 ="],
        "learned": ["21.28", "22.56", "25.12"],
        "rope": ["21.28", "22.56 ▲▲", "25.12 ▲"],
        "xpos": ["21.28", "22.56 ○", "25.12 ?"],
    }
    assert set(verdict_table.MARKS) == set(JUDGED)
    assert all(f"{mark} {word}" in verdict_table.LEGEND for word, mark in verdict_table.MARKS.items())
    for text in (printed, page):
        assert text.count(verdict_table.LEGEND) == 1
    assert "22.56 ▲▲" in printed
    shown = judged(LONGER, [])
    page, printed = report_markdown(shown), on_screen(shown)
    assert "▼" not in printed + page and "Context beyond" not in printed + page


def test_the_marks_of_every_table_that_is_shown_are_explained_once() -> None:
    (headline,), (marked,) = judged(LONGER, []), judged(LONGER, VERDICTS)
    both = on_screen([headline, marked, marked], all_sets=True)
    assert (
        both.count(verdict_table.LEGEND) == report_markdown([headline, marked, marked]).count(verdict_table.LEGEND) == 1
    )
    assert verdict_table.LEGEND not in on_screen([headline, marked])


def test_no_range_is_explained_where_there_is_none() -> None:
    alone = [row("rope-s0-aa", 128, 20.0, ci_low=None, ci_high=None)]
    assert "Ranges are" in report_markdown(tables(SEEDS, labels(SEEDS)))
    assert "Ranges are" not in report_markdown(tables(alone, labels(alone)))


def test_a_verdict_marks_the_table_of_its_own_targets_alone() -> None:
    """A group is often measured again with more targets, another stride or other text."""
    others: list[dict[str, Any]] = [
        {"targets_hash": "ffff0000"},
        {"stride": 64},
        {"corpus": "pg19", "targets_hash": "eeee0000"},
        {"protocol": "sliding"},
    ]
    more = [row(f"{curve}-s0-aa", 256, 30.0, **other) for other in others for curve in CURVES]
    page = report_markdown(judged(LONGER + more, VERDICTS))
    assert page.count("22.56 ▲▲") == page.count("22.56 ▼") == 1 and not re.search("30.00 [▼=≈○▲?]", page)
    for other in others[:3]:
        place = (other.get("targets_hash", "ab12cd34ef56"), other.get("stride"))
        page = report_markdown(judged(LONGER + more, [verdict("rope", 256, "degrades", 0.4, targets=place)]))
        assert page.count("30.00 ▲") == 1 and not re.search("22.56 [▼=≈○▲?]", page)
        assert page.count("### Context beyond the training length") == 1


def test_verdicts_are_told_in_percent_of_perplexity_with_every_estimate() -> None:
    shown = judged(LONGER, VERDICTS)
    page, printed = report_markdown(shown), on_screen(shown)
    collapses = "collapses +50.0 % [+48.5, +51.5]<br>window +40.0 % [+38.6, +41.4]<br>shuffled 0.0 % [−1.0, +1.0]"
    assert pipes(page)[1] == [
        ["curve", "usable length", "256", "512"],
        ["---", "---:", "---", "---"],
        [
            "alibi",
            "512+",
            "uses −10.0 % [−10.9, −9.1]<br>shuffled +5.0 % [+4.0, +6.1]<br>"
            "oracle −20.0 % [−20.8, −19.2]<br>captured 50 % [25, 75]",
            "ignores 0.0 % [−1.0, +1.0]",
        ],
        ["learned", "128–256", "undefined", "–"],
        ["rope", "128–256", collapses, "degrades +10.0 % [+8.9, +11.1]"],
        ["xpos", "256–?", "no headroom 0.0 % [−1.0, +1.0]", "unclear +2.0 % [+1.0, +3.0]"],
    ]
    for text in ("uses −10.0 % [−10.9, −9.1]", "shuffled +5.0 % [+4.0, +6.1]", "512+", "captured 50 % [25, 75]"):
        assert text in printed
    narrow = on_screen(shown, width=60)
    assert "shuffled +5.0 % [+4.0, +6.1]" in narrow and narrow.count("512+") == 2  # a piece a length


def test_what_verdicts_mean_is_told_in_the_order_of_the_rules_and_of_what_was_measured_alone() -> None:
    (marked,), (plain,) = judged(LONGER, VERDICTS), judged(LONGER, [verdict("rope", 256, "degrades", 0.4)])
    said, less = (" ".join(how_to_read(table)) for table in (marked, plain))
    (rules,) = [line for line in how_to_read(marked) if line.startswith("The first rule that holds decides.")]
    places = [rules.index(word) for word in ("ignores", "no headroom", "unchanged", "uses", "collapses", "degrades")]
    assert places == sorted(places) and "0.01 nats (1 %), or 0.25 of the oracle's gain" in rules
    for text in (
        "Through n layers it still reads n × L tokens back",
        "text further back",
        "captured is the curve's own",
    ):
        assert text in said and text not in less
    assert verdict_table.FEW not in said


def test_too_few_seeds_have_estimates_and_neither_word_mark_nor_usable_length() -> None:
    few = [verdict("alibi", 256, TOO_FEW, 0.0), verdict("rope", 256, TOO_FEW, math.log(1.5)), *VERDICTS[-2:]]
    shown = judged(LONGER, few)
    page, printed = report_markdown(shown), on_screen(shown)
    rows = {line[0]: line[1:] for line in pipes(page)[1][2:]}
    assert rows["rope"] == ["–", "+50.0 % [+48.5, +51.5]", "–"] and rows["xpos"][0] == "256–?"
    assert {line[0]: line[2].split("<br>")[0] for line in pipes(page)[0][2:]}["rope"] == "22.56"
    for text in (page, printed):
        assert text.count(verdict_table.FEW) == 2, "below the table, and in the answer above"


def test_statuses_alone_are_no_verdicts_where_other_curves_have_none() -> None:
    """As without kept losses: an answer about the curve that has no value would leave out all that have one."""
    rows = [row("learned-s0-aa", n, 20.0 if n == 128 else None, "ok" if n == 128 else "undefined") for n in (128, 256)]
    status = verdict("learned", 256, "undefined")
    assert judged(rows, [status])[0].verdicts == (status,)
    rows += [row("rope-s0-aa", n, 20.0) for n in (128, 256)]
    assert judged(rows, [status])[0].verdicts == ()
    both = (status, verdict("rope", 256, "degrades", 0.4))
    assert judged(rows, list(both))[0].verdicts == both


def test_changes_of_perplexity_stay_short_however_large() -> None:
    shown = [
        f"{signed(percent(math.log(x)))} %"
        for x in (1.0, 1.0004, 0.9996, 1.0006, 0.5, 1.9994, 1.9996, 12.0, 1000.4, 1e9)
    ]
    assert shown[:4] == ["0.0 %", "0.0 %", "0.0 %", "+0.1 %"]
    assert shown[4:] == ["−50.0 %", "+99.9 %", "+100 %", "+1,100 %", "+99,940 %", "+1.0e+11 %"]
    assert signed(percent(1e6)) == "+1.0e+306"


def test_verdicts_are_kept_as_numbers() -> None:
    text = verdict_table.verdicts_to_csv([*VERDICTS, verdict("rope", 256, "uses", targets=("ff", 32))])
    back = list(csv.DictReader(io.StringIO(text)))
    assert list(back[0]) == [
        *("curve", "length", "word", "margin"),
        *(f"{name}{part}" for name in ESTIMATES for part in ("", "_low", "_high", "_p")),
        *("captured", "captured_low", "captured_high", "seeds", "documents", "targets_hash", "stride"),
    ]
    assert len(back) == len(VERDICTS) + 1
    for line, one in zip(back, VERDICTS, strict=False):
        for name in ESTIMATES:
            estimate_ = getattr(one, name)
            numbers = [line[f"{name}{part}"] for part in ("", "_low", "_high", "_p")]
            known = estimate_ and [estimate_.value, estimate_.low, estimate_.high, estimate_.p]
            assert numbers == (list(map(str, known)) if known else [""] * 4)
    assert [back[0][name] for name in ("captured", "captured_low", "captured_high")] == ["0.5", "0.25", "0.75"]
    assert [back[0][name] for name in ("margin", "seeds", "documents")] == ["0.01", "3", "8"]
    assert [back[2][name] for name in ("word", "cropped", "captured", "seeds")] == ["undefined", "", "", ""]
    assert back[2]["documents"] == "8"  # as the rows say, where nothing is paired
    places = [(line["targets_hash"], line["stride"]) for line in back]
    assert places == [("ab12cd34ef56", "")] * len(VERDICTS) + [("ff", "32")]


def latex_rows(text: str) -> list[list[str]]:
    """The cells of each line of the tables."""
    lines = [line.strip() for line in text.splitlines() if line.rstrip().endswith(r"\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))] for line in lines]


def test_latex_has_the_best_of_each_length_bold_and_intervals_small(tmp_path: Path) -> None:
    rows = [
        *MIXED,
        row("none-s0-dd", 128, 20.999),  # reads like alibi's 21.00
        row("none-s0-dd", 256, 70.0, ci_low=None),
    ]
    written(rows, tmp_path)
    text = (tmp_path / "table.tex").read_text()
    assert latex_rows(text) == [
        ["curve", "128{*}", "256"],
        ["alibi", r"\textbf{21.00}", "--"],
        ["", r"{\scriptsize {[}18.90, 23.10{]}}", ""],
        ["learned", "25.00", "undefined"],
        ["", r"{\scriptsize {[}22.50, 27.50{]}}", ""],
        ["none", r"\textbf{21.00}", "70.00"],
        ["", r"{\scriptsize {[}18.90, 23.10{]}}", ""],
        ["rope", "23.63", r"\textbf{60.00}"],
        ["", r"{\scriptsize {[}20.00, 30.00{]}}", r"{\scriptsize {[}40.00, 90.00{]}}"],
        ["", "", r"{\scriptsize 2/3 ok}"],
        ["", "", r"{\scriptsize non-finite}"],
    ]
    assert r"2,048 targets ab12cd34 $\cdot$ 1 to 3 seeds" in text and "the lowest of each length bold" in text
    written([task("rope-s0-aa", 16, 0.8), task("alibi-s0-bb", 16, 0.9)], tmp_path)
    assert r"alibi & \textbf{90.0} \\" in (tmp_path / "table.tex").read_text()


ODD_NAMES = ["_hidden", "$10^4$", "a<b>&c", "x|y*z~", "50% #1", r"back\slash{}", "rope · window bca 64", "[bold]", "*`"]


@pytest.mark.slow
def test_latex_is_balanced_and_names_are_text(tmp_path: Path) -> None:
    rows = [row(f"r{i}-s0-aa", n, 20.0 + i) for i in range(len(ODD_NAMES)) for n in (128, 256)]
    rows += [row("r0-s0-aa", 128, 20.0, protocol="sliding"), row("r0-s0-aa", 128, 20.0, protocol="per_position")]
    written(rows, tmp_path, curve_of={f"r{i}-s0-aa": name for i, name in enumerate(ODD_NAMES)})
    text = (tmp_path / "table.tex").read_text()
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}") and len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2  # positions are only drawn
    first = {cells[0] for cells in latex_rows(text)}
    assert {escape(name) for name in ODD_NAMES} <= first
    assert not [line for line in text.splitlines() if line.strip().startswith(("[", "*"))]  # arguments of row ends
    assert r"\_hidden" in first and r"\$10\textasciicircum{}4\$" in first and r"50\% \#1" in first
    assert all(len(cells) == 3 for cells in latex_rows(text)[:3])
    labels_ = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels_)) == 2 and all(re.fullmatch(r"tab:[\w-]+", label) and "_" not in label for label in labels_)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    rows = [row(f"r{i}-s0-aa", n, 20.0 + i) for i in range(len(ODD_NAMES)) for n in (128, 256)]
    written(rows, tmp_path, curve_of={f"r{i}-s0-aa": name for i, name in enumerate(ODD_NAMES)})
    whole = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    (tmp_path / "paper.tex").write_text(whole)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True).returncode == 0


def test_html_and_all_are_flags_of_report_alone() -> None:
    assert split_flags("report", ["--html", "group=g"])[1] == ["html=true", "group=g"]
    assert split_flags("report", ["--html=false", "--runs", "a*"])[1] == ["html=false", "runs='a*'"]
    assert split_flags("report", ["--all"])[1] == ["all=true"]
    for flag in ("--html", "--all"):
        with pytest.raises(Misuse, match=f"posexp eval has no flag {flag}"):
            split_flags("eval", [flag])


def measured_run(
    folder: Path, losses_at: dict[int, float], seed: int = 0, train_length: int = 128, group: str = "g"
) -> None:
    """A run folder with rows whose 40 targets in 4 documents have about that loss."""
    from posexp.config.commands import TrainCommand
    from posexp.runs.run import Run
    from posexp.storage import jsonl

    scheme = {"_target_": "posexp.schemes.rope.Rope", "base": 10000.0, "fraction": 1.0}
    config = TrainConfig(length=train_length)
    command = TrainCommand(scheme=scheme, label="rope", results=str(folder), group=group, seed=seed, train=config)
    run = Run.of(command)
    run.create(command)
    store = {"tokens": "ab" * 8}  # runs of one store are recipes of each other's oracles
    (run.folder / "provenance.json").write_text(json.dumps({"commit": "c0ffee", "store": store}))
    for length, nll in losses_at.items():
        made = row(
            f"rope-s{seed}", length, math.exp(nll), train_length=train_length, trained_window="full", documents=4
        )
        loss_N = nll + 0.001 * np.sin(np.arange(40) + 7 * seed + length)
        made = replace(made, run=run.name, document_sums=sums_of(loss_N, np.arange(40) // 10))
        jsonl.append(run.rows, made.values())


def test_the_command_judges_by_the_sums_of_losses_and_writes_the_page(tmp_path: Path, capsys: Any) -> None:
    for seed in (0, 1, 2):
        measured_run(tmp_path, {16: 3.2, 128: 3.0, 256: 3.0, 512: 3.4}, seed)
    command = ReportCommand(results=str(tmp_path), group="g", html=True, measure=Choice.nll)
    report(command)
    folder = tmp_path / "g" / "report"
    page = (folder / "table.md").read_text()
    assert [cell.split("<br>")[0] for cell in pipes(page)[0][2][2:]] == ["3.000", "3.000 ≈", "3.400 ▲▲"]
    assert pipes(page)[1][2][:2] == ["rope", "256–512"] and "collapses +49." in page
    text = (folder / "page.html").read_text()
    assert text.startswith("<!doctype html>") and "c0ffee" in text and "posexp.schemes.rope.Rope" in text
    assert "posexp report" in text and '"rows":"run,scheme,' in text
    capsys.readouterr()
    for path in (tmp_path / "g").glob("rope-*/rows.jsonl"):
        path.write_text(re.sub(r', "document_sums": "[^"]*"', "", path.read_text()))
    shutil.rmtree(folder)
    report(ReportCommand(results=str(tmp_path), group="g"))
    told = [line for line in capsys.readouterr().err.splitlines() if "losses" in line]
    assert len(told) == 1 and "repeat the eval command" in told[0]
    assert "▲" not in (folder / "table.md").read_text() and not (folder / "page.html").exists()
    assert len((folder / "verdicts.csv").read_text().splitlines()) == 1


def test_a_report_of_rows_csv_alone_is_that_of_the_run_folders(tmp_path: Path, capsys: Any) -> None:
    """With oracles: runs of the same recipe that were trained at 256 tokens."""
    for seed in (0, 1, 2):
        measured_run(tmp_path, {16: 3.3, 128: 3.0, 256: 2.98, 512: 3.4}, seed)
        measured_run(tmp_path, {32: 3.2, 128: 3.1, 256: 2.9, 512: 2.9}, seed, train_length=256)
    report(ReportCommand(results=str(tmp_path), group="g"))
    first = tmp_path / "g" / "report"
    (tmp_path / "studies" / "books").mkdir(parents=True)
    source = shutil.copy(first / "rows.csv", tmp_path / "studies" / "books")
    for run in (tmp_path / "g").glob("rope-*"):
        shutil.rmtree(run)
    report(ReportCommand(results=str(tmp_path), rows=str(source)))
    for name in ("rows.csv", "verdicts.csv", "table.tex"):
        assert (tmp_path / "books-rows" / "report" / name).read_bytes() == (first / name).read_bytes(), name
    whole, again = ((folder / "table.md").read_text() for folder in (first, tmp_path / "books-rows" / "report"))
    assert again == whole[: whole.index(f"\n## {FAIRNESS}")], "what is equal is in the configurations, not in the rows"
    (line,) = [line for line in csv.DictReader((first / "verdicts.csv").read_text().splitlines()) if line["captured"]]
    assert (line["length"], line["word"]) == ("256", "uses") and float(line["captured"]) == pytest.approx(0.2, abs=0.02)
    assert float(line["gain"]) == pytest.approx(0.1, abs=0.002) and line["gain_low"] and line["captured_low"]
    with pytest.raises(Misuse, match="would replace rows="):
        report(
            ReportCommand(results=str(tmp_path), group="books-rows", rows=str(tmp_path / "books-rows/report/rows.csv"))
        )


def test_named_oracles_are_those_of_the_glob_and_stay_curves_of_the_table(tmp_path: Path, capsys: Any) -> None:
    rows = [with_sums(row(f"short-s{seed}-aa", n, 20.0)) for seed in (0, 1, 2) for n in (128, 256)]
    rows += [with_sums(row(f"long-s{seed}-bb", 256, 18.0, train_length=256)) for seed in (0, 1, 2)]
    curve_of = labels(rows)
    (tmp_path / "rows.csv").write_text(rows_to_csv([replace(r, curve=curve_of[r.run]) for r in rows]))
    command = ReportCommand(results=str(tmp_path), group="g", rows=str(tmp_path / "rows.csv"))
    words = {}
    for oracle in (None, "lo*"):
        report(replace(command, oracle=oracle))
        page = (tmp_path / "g/report/table.md").read_text()
        assert [line[0] for line in pipes(page)[0][2:]] == ["long", "short"]
        (line,) = csv.DictReader((tmp_path / "g/report/verdicts.csv").read_text().splitlines())
        words[oracle] = line["word"], line["captured"] and round(float(line["captured"]), 2)
    assert words == {None: ("unchanged", ""), "lo*": ("ignores", pytest.approx(0, abs=0.01))}
    with pytest.raises(Misuse, match="names no curve: there are long, short"):
        report(replace(command, oracle="x*"))
    with pytest.raises(Misuse, match="names two curves trained at 128 tokens, short and shorter"):
        check_oracle("sh*", [*rows, row("shorter-s0-cc", 128, 20.0)], {**curve_of, "shorter-s0-cc": "shorter"})


@pytest.mark.slow
def test_all_of_the_command_prints_every_table(tmp_path: Path, capsys: Any) -> None:
    from posexp.storage import jsonl

    for seed in (0, 1, 2):
        measured_run(tmp_path, {128: 3.0, 256: 3.0}, seed)
    folder = min((tmp_path / "g").glob("rope-*"))
    jsonl.append(folder / "rows.jsonl", row(folder.name, 128, 321.0, seed=0, protocol="sliding", stride=32).values())
    for everything in (False, True):
        report(ReportCommand(results=str(tmp_path), group="g", all=everything))
        shown = capsys.readouterr().out
        assert ("Also measured" in shown) == (not everything) and "20.09 ≈" in shown
        assert shown.count("128*") == 1 + everything and shown.count("353.1") == everything  # its upper bound


def numbers(cell: str) -> list[float]:
    return [float(text) for text in re.findall(r"\d[\d.]*(?:e\+\d+)?", cell)]


def marks_of(cells: Iterable[str]) -> list[str]:
    """The word of every mark."""
    word_of = {mark: word for word, mark in verdict_table.MARKS.items()}
    return [word_of[mark] for cell in cells for mark in re.findall("▲▲|[▼=≈○▲?]", cell)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of MIXED_SETS."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "printed").write_text(
        written(
            MIXED_SETS,
            folder,
            pairs=paired(MIXED_SETS),
            page=lambda shown: page_of("sets", shown, [], {}),
            all_sets=True,
        )[0]
    )
    return folder


def test_no_table_mixes_two_sets() -> None:
    pairs = paired(MIXED_SETS)
    found = tables(MIXED_SETS, labels(MIXED_SETS), PPL, pairs.verdicts(), pairs.changes())
    assert [table.targets_hashes for table in found] == [(of_set.targets_hash,) for of_set in SETS]
    for table, of_set in zip(found, SETS, strict=True):
        assert (table.protocol, table.stride, table.lengths) == (of_set.protocol, of_set.stride, of_set.lengths)
        assert table.targets == (of_set.targets,) and set(table.seeds.values()) == {of_set.seeds}
        assert len(table.cells) == 2 * len(of_set.lengths)
        assert all(cell.ppl and of_set.owns(cell.ppl) for cell in table.cells.values())
        assert {(v.place.targets_hash, v.place.stride) for v in table.verdicts} <= {
            (of_set.targets_hash, of_set.stride)
        }
        assert table.words == {
            (curve, length): word for curve, word in of_set.words.items() for length in of_set.lengths if length > 128
        }
        assert {one.curve for one in table.usable} == set(of_set.words)
        for (curve, length), cell in table.cells.items():
            known = of_set.protocol == "same_targets" and 128 in of_set.lengths
            assert (cell.change is not None) == known
            if cell.change and length > 128:
                moved = math.log2(length / 128) * math.log(of_set.growth[curve])
                assert cell.change.value == pytest.approx(moved, abs=1e-5)
    near, far = found[:2]
    assert [v.place[:2] for v in (*near.verdicts, *far.verdicts) if v.window] == [("rope", 512)]
    assert {v.place.targets_hash for v in (*near.verdicts, *far.verdicts) if v.eighth} == {"bb00far0"}


@pytest.mark.slow
def test_no_cell_column_or_mark_of_table_md_mixes_two_sets(sets: Path) -> None:
    _, *sections = re.split(r"^## ", (sets / "table.md").read_text(), flags=re.MULTILINE)
    assert len(sections) == len(SETS)
    for section, of_set in zip(sections, SETS, strict=True):
        assert section.startswith(rf"{of_set.protocol.replace('_', chr(92) + '_')} · targets {of_set.targets_hash}")
        assert re.findall("targets ([a-f]{2}00....)", section) == [of_set.targets_hash] * 2  # and in the line of facts
        (head, _, *lines), *verdicts = pipes(section)
        assert [cell.strip("*") for cell in head[1:]] == list(map(str, of_set.lengths))
        for curve, *cells in lines:
            assert all(of_set.owns(number) for cell in cells for number in numbers(cell))
            assert all(numbers(cell) for cell in cells)
            longer = [length for length in of_set.lengths if length > 128]
            assert marks_of(cells) == [of_set.words[curve] for _ in longer if of_set.words]
        assert len(verdicts) == bool(of_set.words)
        for curve, _, *cells in verdicts[0][2:] if verdicts else []:
            assert {cell.split()[0] for cell in cells} == {of_set.words[curve]}
            assert sum("window" in cell for cell in cells) == (
                section.startswith("same") and "near" in section[:40] and curve == "rope"
            )


def test_no_table_for_a_paper_mixes_two_sets(sets: Path) -> None:
    _, *blocks = (sets / "table.tex").read_text().split(r"\begin{table}")
    assert len(blocks) == len(SETS) == len(set(re.findall(r"\\label\{.*?\}", "".join(blocks))))
    for block, of_set in zip(blocks, SETS, strict=True):
        assert re.findall("[a-f]{2}00....", block) == [of_set.targets_hash] * 2  # in its caption and its label
        head, *lines = latex_rows(block)
        assert [cell.removesuffix("{*}") for cell in head[1:]] == list(map(str, of_set.lengths))
        found = [number for line in lines for cell in line[1:] for number in numbers(cell)]
        assert len(found) >= 2 * len(of_set.lengths) and all(map(of_set.owns, found))


def test_no_line_of_verdicts_csv_mixes_two_sets(sets: Path) -> None:
    lines = list(csv.DictReader((sets / "verdicts.csv").read_text().splitlines()))
    assert sorted((r["targets_hash"], r["stride"], r["curve"], int(r["length"]), r["word"]) for r in lines) == sorted(
        (of_set.targets_hash, str(of_set.stride or ""), curve, length, word)
        for of_set in SETS
        for curve, word in of_set.words.items()
        for length in of_set.lengths
        if length > 128
    )
    growth = {(of_set.targets_hash, curve): value for of_set in SETS for curve, value in of_set.growth.items()}
    for line in lines:
        change = math.log2(int(line["length"]) / 128) * math.log(growth[line["targets_hash"], line["curve"]])
        assert float(line["cropped"]) == pytest.approx(change, abs=1e-6)
        assert bool(line["window"]) == (
            line["targets_hash"] == "aa00near" and line["length"] == "512" and line["curve"] == "rope"
        )


def answer_of(folder: Path) -> str:
    """The answer that stands above page.html."""
    found = re.search('<p id="answer">(.*?)</p>', (folder / "page.html").read_text())
    assert found
    return html.unescape(found[1])


def test_nothing_in_the_page_mixes_two_sets(sets: Path) -> None:
    page = (sets / "page.html").read_text()
    options = re.findall(r'<option value="\d+">(.*?)</option>', page)
    assert [re.findall("[a-f]{2}00....", option) for option in options] == [[of_set.targets_hash] for of_set in SETS]
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page)
    assert data
    views = [view for view in json.loads(data[1])["views"] if view["metric"] == PPL.axis]
    judged = dict(re.findall(r'<section data-table="(\d+)".*?>(.*?)</section>', page, re.DOTALL))
    for number, (view, of_set) in enumerate(zip(views, SETS, strict=True)):
        traces = view["figure"]["data"]
        lengths = {tuple(trace["x"]) for trace in traces if trace["uid"].startswith("line")}
        assert view["table"] == str(number) and lengths == {of_set.lengths}
        assert all(of_set.owns(value) for trace in traces for value in trace["y"])
        rows = re.findall("<tr><td><b.*?</b>&nbsp;(.*?)</td>(.*?)</tr>", judged.get(str(number), ""), re.DOTALL)
        longer = sum(length > 128 for length in of_set.lengths)
        assert {curve: re.findall('<td class="(.+?)">', cells) for curve, cells in rows} == {
            curve: [word] * longer for curve, word in of_set.words.items()
        }


def test_the_answer_is_about_the_headline_alone(sets: Path) -> None:
    told = answer_of(sets)
    assert re.findall(r"At (\S+) times", told) == ["4"]  # the far set has 8
    assert re.search(r"rope is 69 % worse .*; alibi is 9\.8 % better", told)
    assert (sets / "table.md").read_text().split("\n\n")[1] == told
    assert (sets / "printed").read_text().startswith(told[:100])


@pytest.mark.parametrize("seed", range(8))
def test_whatever_was_measured_a_column_and_a_difference_are_of_one_set(seed: int) -> None:
    """Of rows with any runs, lengths, strides and targets: all that share them have one loss, which no others have."""
    draw, loss_of = Random(seed), {}
    rows = []
    for number in range(250):
        protocol = draw.choice(["same_targets", "same_targets", "nonoverlapping", "sliding", "last_k", "bygone"])
        length, stride = draw.choice([64, 128, 256, 512]), draw.choice([None, 32])
        hash_ = draw.choice("ab") + (str(length) if protocol == "last_k" else "")
        loss = loss_of.setdefault((protocol, stride, hash_), 1 + len(loss_of) / 2)
        place = {"protocol": protocol, "stride": stride, "targets_hash": hash_, "documents": 8}
        rows.append(row(f"{draw.choice(['rope', 'alibi'])}-s{number % 2}-aa", length, math.exp(loss), **place))
    pairs = paired(rows)
    verdicts = pairs.verdicts()
    found = tables(rows, labels(rows), PPL, verdicts, pairs.changes())
    for table in found:
        for length in table.lengths:
            of_column = {round(cell.nll or 0, 6) for (_, n), cell in table.cells.items() if n == length}
            assert len(of_column) == 1
        if table.protocol != "last_k":
            assert {round(cell.nll or 0, 6) for cell in table.cells.values()} == of_column
            assert len(table.targets_hashes) == 1
        for one in table.verdicts:
            assert (one.place.targets_hash, one.place.stride) == (table.targets_hashes[0], table.stride)
            assert one.cropped and one.cropped.value == pytest.approx(0, abs=1e-6)
        assert all(cell.change.value == pytest.approx(0, abs=1e-6) for cell in table.cells.values() if cell.change)
    assert verdicts and sum(len(table.verdicts) for table in found) == len(verdicts)
    cells = {(r.protocol, r.stride, r.targets_hash, r.scheme, r.length) for r in rows}
    assert sum(len(table.cells) for table in found) == len(cells)


@pytest.mark.slow
def test_the_terminal_shows_the_headline_and_a_line_for_each_other_table(tmp_path: Path) -> None:
    shown, page, _ = written(MIXED_SETS, tmp_path, pairs=paired(MIXED_SETS))
    headline, rest = shown.split("\nAlso measured, in table.md and by posexp report --all:\n")
    near, _, *_ = pipes(page)
    for line in near[2:]:
        assert all(cell.split("<br>")[0] in headline for cell in line), line
    assert headline.count(verdict_table.HEADING) == 1 and headline.count("degrades +30.0 %") == 1
    assert not re.search("(bb|cc|dd|ee|ff)00", headline)
    lines = rest.split("\n")
    assert [line.partition(" targets ")[2][:8] for line in lines[:5]] == [of_set.targets_hash for of_set in SETS[1:]]
    assert lines[0] == (
        "same_targets · 16 to 1,024 · 900 targets bb00far0 in 3 documents · 3 seeds · perplexity 85.74 to 219.7"
    )
    assert lines[4].startswith("sliding · 128 to 512 · 900 targets ff00slid in 8 documents · stride 32 · 3 seeds")
    assert all(line.startswith(str(tmp_path)) for line in lines[5:-1]) and verdict_table.HEADING not in rest


def test_with_all_sets_the_terminal_shows_every_table_in_full(sets: Path) -> None:
    shown = (sets / "printed").read_text()
    assert "Also measured" not in shown and shown.count(verdict_table.HEADING) == 3
    assert shown.count("Each cell is a perplexity") == 1
    for table in pipes((sets / "table.md").read_text()):
        for line in table[2:]:
            for cell in line[1:]:
                first = re.split(r" \[|<br>", cell)[0]
                assert first in shown, cell
    assert [*re.findall(" targets ([a-f]{2}00....)", shown)] == [of_set.targets_hash for of_set in SETS]


def test_the_usable_size_of_a_task_is_the_largest_up_to_which_the_mean_is_at_the_threshold() -> None:
    shares = {
        "all": {8: (0.9, 0.86), 16: (1.0, 0.9), 32: (0.8, 0.92)},
        "some": {8: (0.856, 0.856), 16: (0.9, 0.81), 32: (1.0, 1.0)},
        "none": {8: (0.85, 0.85), 16: (1.0, 1.0), 32: (1.0, 1.0)},
        "part": {8: (1.0, 1.0), 32: (1.0, 1.0)},
    }
    rows = [
        task(f"{name}-s{seed}-aa", size, share)
        for name, sizes in shares.items()
        for size, pair in sizes.items()
        for seed, share in enumerate(pair)
    ]
    (table,) = tables(rows, {row.run: row.run.partition("-")[0] for row in rows})
    wanted = {"all": "32+", "some": "8", "none": "–", "part": "8"}
    assert {curve: table.shown_size(curve) for curve in table.curves} == wanted
    ((head, cells),) = verdict_table.columns(table)
    assert head == "usable size" and {curve: text for curve, (text, _) in cells.items()} == wanted
    assert "85.6 % or more" in on_screen([table])


def test_a_task_among_other_tables_is_told_by_its_exact_match() -> None:
    rows = [*SEEDS, task("rope-s0-aa", 16, 0.8), task("rope-s0-aa", 32, 0.2), task("alibi-s0-bb", 32, None)]
    *_, line = on_screen(tables(rows, labels(rows))).strip().split("\n")
    assert line.startswith("exact_match · 16 to 32 · ") and line.endswith("exact match in percent 20.0 to 80.0")
    *_, line = on_screen(tables([*SEEDS, task("rope-s0-aa", 16, None)], {})).strip().split("\n")
    assert line.endswith("no values")


def told(*verdicts: Verdict, rows: list[dict] | None = None) -> str:
    """The answer of a table with these verdicts; the rows are those that they need."""
    if rows is None:
        places = {(verdict.place.curve, n) for verdict in verdicts for n in (128, verdict.place.length)}
        rows = [row(f"{curve}-s0-aa", n, 20.0, documents=8) for curve, n in sorted(places)]
    (table,) = tables(rows, {r.run: r.run.split("-s0")[0] for r in rows}, PPL, verdicts)
    return answer(table)


AT_4 = "At 4 times {} training length, against that length alone, {}. Intervals are over 1 seed and 8 documents."


@pytest.mark.parametrize(
    ("word", "ratio", "said"),
    [
        ("degrades", 1.36, "rope is 36 % worse (95 %: 35 to 37 %)"),
        ("degrades", 30.88, "rope is 2,988 % worse (95 %: 2,957 to 3,019 %)"),
        ("degrades", 1.03, "rope is 3.0 % worse (95 %: 2.0 to 4.0 %)"),
        ("degrades", 1e9, "rope is 1.0e+11 % worse (95 %: 9.9e+10 to 1.0e+11 %)"),
        (
            "collapses",
            1.36,
            "rope is 36 % worse (95 %: 35 to 37 %), and worse than with an eighth of the training length",
        ),
        ("uses", 0.9, "rope is 10 % better (95 %: 9.1 to 11 %)"),
        ("uses", 0.97, "rope is 3.0 % better (95 %: 2.0 to 4.0 %)"),
        ("unchanged", 1.0, "rope is unchanged (95 %: −1.0 to +1.0 %)"),
        ("ignores", 1.0, "rope is unchanged (95 %: −1.0 to +1.0 %), while the oracle gains"),
        ("no headroom", 1.0, "rope is unchanged (95 %: −1.0 to +1.0 %), and the oracle is not shown to gain"),
        ("unclear", 0.995, "rope is undecided (95 %: −1.5 to +0.5 %)"),
        ("unclear", 1.0096, "rope is undecided (95 %: 0.0 to +2.0 %)"),
    ],
)
def test_the_answer_says_in_percent_what_becomes_of_a_curve(word: str, ratio: float, said: str) -> None:
    assert told(verdict("rope", 512, word, math.log(ratio))) == AT_4.format("its", said)


def test_the_answer_names_what_kept_a_curve_from_having_a_value() -> None:
    assert told(verdict("learned", 512, "undefined")) == (
        "At 4 times its training length, against that length alone, learned has no value (undefined)."
    )
    both = told(verdict("learned", 512, "undefined"), verdict("b", 512, "out of memory"))
    assert "b has no value (out of memory)" in both and "learned has no value (undefined)" in both


def test_without_an_interval_the_answer_claims_none() -> None:
    alone = Estimate(0.4, None, None, None, None, 1, 1)
    place = Place("rope", 512, "ab12cd34ef56", None)
    rows = [row("rope-s0-aa", n, 20.0, documents=1) for n in (128, 512)]
    assert told(Verdict(place, "unclear", cropped=alone), rows=rows) == (
        "At 4 times its training length, against that length alone, rope is undecided."
    )
    (judgement,) = judged(rows, [Verdict(place, "unclear", cropped=alone)])
    assert "95 % intervals" not in " ".join(how_to_read(judgement))


def test_the_answer_goes_from_the_worst_over_the_best_to_what_nothing_is_known_of() -> None:
    said = told(
        verdict("a", 512, "undefined"),
        verdict("b", 512, "unclear", 0.0),
        verdict("c", 512, "ignores", 0.0),
        verdict("d", 512, "uses", math.log(0.9)),
        verdict("e", 512, "uses", math.log(0.8)),
        verdict("f", 512, "degrades", math.log(1.2)),
        verdict("g", 512, "collapses", math.log(1.1)),
    )
    assert re.findall(r"\b([a-g]) (?:is|has)", said) == ["g", "f", "e", "d", "c", "b", "a"]
    assert said.startswith("At 4 times the training length, ") and said.count("; ") == 6


def test_every_multiple_that_is_the_longest_of_a_curve_has_a_sentence_the_longest_first() -> None:
    rows = [row("alibi-s0-aa", n, 20.0, train_length=64) for n in (64, 128, 512)]
    rows += [row("rope-s0-aa", n, 20.0) for n in (128, 256, 512)] + [row("nope-s0-aa", n, 20.0) for n in (128, 192)]
    found = told(
        verdict("alibi", 128, "degrades", 0.1),  # further ones are known
        verdict("alibi", 512, "uses", -0.1),
        verdict("nope", 192, "unchanged", 0.0),
        verdict("rope", 256, "uses", -0.1),
        verdict("rope", 512, "degrades", 0.3),
        rows=rows,
    )
    assert re.findall(r"At (\S+) times its training length, against that length alone, (\w+) is (\S+)", found) == [
        ("8", "alibi", "9.5"),
        ("4", "rope", "35"),
        ("1.5", "nope", "unchanged"),
    ]
    assert "worse" in found and found.count("better") == 1 and found.endswith("Intervals are over 1 seed.")


def test_more_than_six_curves_of_a_word_share_a_phrase_with_the_range_of_their_changes() -> None:
    for count in (6, 7):
        worse = [verdict(f"c{n}", 512, "degrades", math.log(1.1 + n / 10)) for n in range(count)]
        same = [verdict(f"d{n}", 512, "unchanged", 0.0) for n in range(count)]
        lost = [verdict(f"e{n}", 512, "undefined") for n in range(count)]
        found = told(*worse, *same, *lost, verdict("f", 512, "uses", math.log(0.9)))
        assert ("c6, c5, c4, c3, c2, c1 and c0 are 10 to 70 % worse; f is 10 % better" in found) == (count == 7)
        assert ("d0, d1, d2, d3, d4, d5 and d6 are unchanged; " in found) == (count == 7)
        assert ("e0, e1, e2, e3, e4, e5 and e6 have no value (undefined)." in found) == (count == 7)
        assert found.count("c3 is 40 % worse (95 %") == (count == 6)


def test_without_verdicts_there_is_no_answer(tmp_path: Path) -> None:
    assert told(rows=SEEDS) == ""
    shown, page, _ = written(SEEDS, tmp_path)
    assert "Intervals are over" not in shown + page


def test_the_answers_interval_is_that_of_the_paired_losses(tmp_path: Path) -> None:
    rows = [row(f"rope-s{s}-aa", n, 20.0 * 1.5 ** (n > 128) + s, documents=8) for s in (0, 1, 2) for n in (128, 512)]
    by_length = [[with_sums(made) for made in rows if made.length == n] for n in (512, 128)]
    one = estimate(*differences(list(zip(*by_length, strict=True))))
    assert one.low is not None and one.high is not None and one.low < one.value < one.high
    shown, page, _ = written(rows, tmp_path, pairs=paired(rows))
    said = (
        f"At 4 times its training length, against that length alone, rope is {percent(one.value):.0f} % worse "
        f"(95 %: {percent(one.low):.0f} to {percent(one.high):.0f} %). Intervals are over 3 seeds and 8 documents."
    )
    assert said in shown and page.split("\n\n")[1] == said
    assert f"{percent(one.low):.0f} to {percent(one.high):.0f}" == "42 to 53"


def test_names_in_the_answer_are_text_and_never_markup(tmp_path: Path) -> None:
    names = ["[bold]x[/bold]", "<b>&amp;", "$10^4$", "a|b*c*_d_", "</script>", "x\n\n# y"]
    rows = [
        row(f"r{i}-s{seed}-aa", n, 20.0 + n, documents=8)
        for i in range(len(names))
        for seed in (0, 1, 2)
        for n in (128, 256)
    ]
    curve_of = {made.run: names[int(made.run[1])] for made in rows}
    pairs, make = paired(rows, curve_of), lambda shown: page_of("odd", shown, [], {})
    shown, page, _ = written(rows, tmp_path, curve_of=curve_of, pairs=pairs, page=make)
    said = page.split("\n\n")[1]
    lines = [" ".join(name.split()) for name in names]
    assert all(f"{name} is 86 % worse" in " ".join(shown.split()) for name in lines)
    assert all(f"{name} is 86 % worse" in re.sub(r"\\(.)", r"\1", said) for name in lines)
    assert not re.search(r"(?<!\\)[\[<$|*_&#]", said)
    assert all(f"{name} is 86 % worse" in answer_of(tmp_path) for name in lines)
