"""Rows with known numbers become the tables, files and picture that posexp report promises."""

import csv
import io
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from posexp.command_line import translate
from posexp.commands import ReportCommand
from posexp.config import Measure as Choice
from posexp.errors import Misuse, RunFailed
from posexp.evaluation import losses
from posexp.evaluation.losses import Losses
from posexp.evaluation.statistics import Estimate
from posexp.evaluation.verdicts import Usable, Verdict
from posexp.report import COLUMNS, ranking, tables, write
from posexp.report.beyond import percent
from posexp.report.command import report
from posexp.report.curves import wrapped
from posexp.report.latex import escape
from posexp.report.measure import BITS_PER_BYTE, EXACT_MATCH, MEASURES, NLL, PPL, Measure, digits
from posexp.report.style import looks
from posexp.report.table import markdown
from posexp.report.ticks import log_ticks, plain, tick_labels, y_ticks


def row(run: str, length: int, ppl: float | None, status: str = "ok", **other: Any) -> dict[str, Any]:
    made: dict[str, Any] = dict.fromkeys(COLUMNS)
    made |= {"run": run, "scheme": run.split("-")[0], "seed": int(run.split("-s")[1][0]), "train_length": 128}
    made |= {"length": length, "protocol": "same_targets", "stride": 32, "window": "full", "targets": 2048}
    made |= {"targets_hash": "ab12cd34ef56", "kernel_path": "sdpa", "crossing_share": 0.0, "status": status}
    if ppl is not None:
        made |= {"nll": math.log(ppl), "ppl": ppl, "ci_low": ppl * 0.9, "ci_high": ppl * 1.1}
    return made | other


def labels(rows: list[dict]) -> dict[str, str]:
    return {r["run"]: r["scheme"] for r in rows}


def screen(width: int = 200) -> Console:
    return Console(file=io.StringIO(), width=width)


def written(rows: list[dict], folder: Path, **options: Any) -> tuple[str, str, str]:
    """What was printed, table.md and curves.svg."""
    console = screen()
    write(rows, options.pop("curve_of", labels(rows)), folder, console=console, **options)
    return console.file.getvalue(), (folder / "table.md").read_text(), (folder / "curves.svg").read_text()  # type: ignore


def pipes(text: str) -> list[list[list[str]]]:
    """The cells of every pipe table in a Markdown text, unescaped."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.strip().split("\n")]
            found.append([[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in line] for line in lines])
    return found


def picture_words(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def crosses(svg: str) -> int:
    """How many × marks an SVG has: matplotlib draws each as a <use> of one path of two strokes."""
    strokes = set(re.findall(r'<path id="(\w+)" d="M [-\d.]+ [-\d.]+ \nL [-\d.]+ [-\d.]+ \nM', svg))
    return sum(svg.count(f'xlink:href="#{name}"') for name in strokes)


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


def test_different_targets_share_a_table_only_when_told() -> None:
    rows = [
        *SEEDS,
        row("alibi-s0-cc", 128, 21.0, targets_hash="ffff0000"),
        row("rope-s0-aa", 128, 7.0, targets_hash="ffff0000"),
    ]
    apart = tables(rows, labels(rows))
    assert [table.targets_hashes for table in apart] == [("ab12cd34ef56",), ("ffff0000",)]  # most runs first
    assert apart[0].curves == ("rope",) and apart[1].curves == ("alibi", "rope")
    (joined,) = tables(rows, labels(rows), mixed_targets=True)
    assert set(joined.targets_hashes) == {"ab12cd34ef56", "ffff0000"}
    assert joined.cells["rope", 128].low == pytest.approx(7)  # the run's last row


def test_the_report_says_that_and_why_tables_are_apart(tmp_path: Path) -> None:
    rows = [*SEEDS, row("alibi-s0-cc", 128, 21.0, targets_hash="ffff0000")]
    printed, page, _ = written(rows, tmp_path)
    assert "their targets differ (ab12cd34, ffff0000)" in printed and "mixed_targets=true" in printed
    assert "their targets differ" in page and len(pipes(page)) == 2
    printed, page, _ = written(rows, tmp_path, mixed_targets=True)
    assert "are apart" not in printed and len(pipes(page)) == 1
    assert "targets differ between rows: ab12cd34, ffff0000" in printed


def test_strides_and_protocols_never_share_a_table_and_the_headline_is_first() -> None:
    rows = [
        row("rope-s0-aa", 128, 20.0, protocol="per_position"),
        row("rope-s0-aa", 128, 20.0, protocol="sliding"),
        row("rope-s0-aa", 128, 20.0, protocol="nonoverlapping", stride=None),
        row("rope-s0-aa", 128, 20.0, stride=64),
        row("rope-s0-aa", 128, 20.0),
    ]
    found = tables(rows, labels(rows), mixed_targets=True)
    assert [(t.protocol, t.stride) for t in found] == [
        ("same_targets", 32),
        ("same_targets", 64),
        ("nonoverlapping", None),
        ("sliding", 32),
        ("per_position", 32),
    ]


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
            ["alibi", "21.00 [18.90, 23.10]", "–"],
            ["learned", "25.00 [22.50, 27.50]", "undefined"],
            ["rope", "23.63 [20.00, 30.00]", "60.00 [40.00, 90.00] (2/3 ok, non-finite)"],
        ]
    ]
    assert "2,048 targets ab12cd34 · stride 32 · 1 to 3 seeds · trained at 128 tokens" in page
    assert "the 95 % interval over documents, by a bootstrap" in page


def test_the_terminal_shows_every_cell_however_narrow(tmp_path: Path) -> None:
    rows = MIXED + [row("rope-s0-aa", 2**e, 1.5**e) for e in range(9, 15)]
    for width in (200, 60, 30):
        console = screen(width)
        write(rows, labels(rows), tmp_path, console=console)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        for text in ("128*", "60.00", "40.00–90.00", "2/3 ok", "non-finite", "undefined", "16384", "291.9"):
            assert text in printed, (width, text)
        assert "…" not in printed


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
    assert "failed" in picture_words(svg)


def test_the_csv_parses_back_with_columns_then_extras_and_empty_for_none(tmp_path: Path) -> None:
    rows = [
        row("rope-s0-aa", 128, 20.0, note='a "quoted", one'),
        row("learned-s0-bb", 256, None, "undefined", documents=3),
    ]
    written(rows, tmp_path)
    with open(tmp_path / "rows.csv", newline="") as file:
        reader = csv.DictReader(file)
        back = list(reader)
    assert reader.fieldnames == [*COLUMNS, "note", "documents"]
    assert float(back[0]["nll"]) == rows[0]["nll"] and back[0]["note"] == 'a "quoted", one'
    assert back[1]["ppl"] == "" and back[1]["status"] == "undefined" and back[1]["documents"] == "3"


def test_every_failure_is_a_cross_in_the_picture_and_every_curve_is_named(tmp_path: Path) -> None:
    rows = [*MIXED, row("none-s0-dd", 128, None, "undefined"), row("none-s0-dd", 256, None, "out of memory")]
    _, _, svg = written(rows, tmp_path)
    words = picture_words(svg)
    assert {"rope", "learned", "alibi", "none", "undefined", "2/3 ok, non-finite", "trained at 128"} <= set(words)
    assert any("undefined" in text and "out of memory" in text for text in words)
    assert crosses(svg) == 1 + 1 + 2 + 1  # rope, learned, none twice, and the one in the legend
    _, _, svg = written(SEEDS, tmp_path)
    assert crosses(svg) == 0


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    names = ("rows.csv", "verdicts.csv", "table.md", "table.tex", "curves.png", "curves.svg")
    for folder in ("a", "b"):
        paths = write(MIXED, labels(MIXED), tmp_path / folder, console=screen())
        assert paths == [tmp_path / folder / name for name in names]
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")
    other = [*MIXED[:-1], row("alibi-s0-cc", 128, 35.0)]
    write(other, labels(other), tmp_path / "b", console=screen())
    for name in set(names) - {"verdicts.csv"}:
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()


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
    ],
)
def test_odd_shapes_are_reported_without_a_warning(rows: list[dict], tmp_path: Path) -> None:
    curve_of = {r["run"]: r["run"] for r in rows}
    _, page, svg = written(rows, tmp_path, curve_of=curve_of)
    assert set(curve_of) <= set(picture_words(svg))
    assert page.startswith("# ")


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    names = ["_hidden", "$10^4$", "a<b>&c", "x|y*z*", "[bold]odd[/bold]", r"back\slash", "名前", "lone $"]
    rows = [row(f"r{i}-s0-aa", n, 20.0 + i) for i in range(len(names)) for n in (128, 256)]
    curve_of = {f"r{i}-s0-aa": name for i, name in enumerate(names)}
    printed, page, svg = written(rows, tmp_path, curve_of=curve_of)
    assert {line[0] for line in pipes(page)[0][2:]} == set(names)
    assert set(names) <= set(picture_words(svg))
    assert all(name in printed for name in names)
    assert "<b>" not in re.sub(r"\\<", "", page) and r"\$10^4\$" in page


def test_panels_agree_on_the_look_of_a_curve_and_no_two_curves_look_alike() -> None:
    rows = [row(f"r{i:02}-s0-aa", 128, 20.0) for i in range(40)]
    more = [row(f"r{i:02}-s0-aa", 128, 20.0, protocol="sliding") for i in range(5, 40)]
    found = looks(tables(rows + more, {}))
    assert len(set(found.values())) == 40
    assert found == looks(tables(more + rows, {}))


def test_numbers_keep_four_digits_and_huge_ones_two() -> None:
    shown = [digits(x) for x in (1.0, 21.4, 9.99996, 174.0, 1532.4, 9999.4, 9999.6, 123456.0, 1e300)]
    assert shown == ["1.000", "21.40", "10.000", "174.0", "1532", "9999", "1.0e+04", "1.2e+05", "1.0e+300"]


@pytest.mark.parametrize(("low", "high"), [(20, 20.5), (18, 45), (15, 900), (19, 140_000), (1.5, 1e12), (3, 1e300)])
def test_the_perplexity_axis_has_a_handful_of_plain_labels(low: float, high: float) -> None:
    ticks = log_ticks(low, high, 9)
    assert 3 <= len(ticks) <= 9 and all(low <= tick <= high for tick in ticks)
    written_ = [plain(tick) for tick in ticks]
    assert len(set(written_)) == len(ticks) and not any("e" in text for text in written_)


def test_positions_are_drawn_and_stored_but_not_tabled(tmp_path: Path) -> None:
    rows = SEEDS + [row("rope-s0-aa", n, 30.0, protocol="per_position") for n in range(1, 200)]
    printed, page, svg = written(rows, tmp_path)
    assert "per_position" not in printed and len(pipes(page)) == 1 and "curves.png" in page
    assert "Perplexity by position" in picture_words(svg)
    assert (tmp_path / "rows.csv").read_text().count("per_position") == 199


def test_no_rows_is_a_misuse_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="posexp eval"):
        write([], {}, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_written_fails_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFailed, match="cannot write the report into") as caught:
            write(SEEDS, labels(SEEDS), folder, console=screen())
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_file_that_cannot_be_replaced_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "table.md").mkdir()
    with pytest.raises(RunFailed, match="cannot write the report into"):
        write(SEEDS, labels(SEEDS), tmp_path, console=screen())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_importing_the_report_imports_neither_matplotlib_nor_rich_nor_torch() -> None:
    program = "import sys, posexp.report; print([m for m in ('matplotlib', 'rich', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    write(SEEDS, labels(SEEDS), tmp_path, console=screen())
    assert dict(matplotlib.rcParams) == before


def test_the_page_is_the_same_whatever_the_console(tmp_path: Path) -> None:
    write(MIXED, labels(MIXED), tmp_path, console=screen(40))
    assert (tmp_path / "table.md").read_text() == markdown(tables(MIXED, labels(MIXED)))


def shown_by(measure: Measure, *rows: dict) -> dict[tuple[str, int], tuple]:
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


def task(run: str, size: int, share: float | None, **other: Any) -> dict[str, Any]:
    made = {"protocol": "exact_match", "stride": None, "train_length": 16, "exact_match": share, "documents": 10}
    return row(run, size, None if share is None else 1.5, "ok" if share is not None else "undefined", **made | other)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_task_is_shown_by_exact_match_whatever_the_measure(measure: Measure) -> None:
    found = shown_by(measure, task("rope-s0-aa", 16, 0.8), task("rope-s0-aa", 32, 0.0))
    assert found["rope", 16] == pytest.approx((80, 49.02, 94.33), abs=0.01)  # Wilson's interval of 8 of 10
    assert found["rope", 32] == pytest.approx((0, 0, 27.75), abs=0.01)  # and of 0 of 10
    found = shown_by(measure, task("rope-s0-aa", 16, 0.8), task("rope-s1-aa", 16, 0.6))
    assert found["rope", 16] == pytest.approx((70, 60, 80))


def test_tasks_and_text_share_a_report_and_each_says_how_to_read_it(tmp_path: Path) -> None:
    rows = [*SEEDS, task("rope-s0-aa", 16, 0.8), task("rope-s0-aa", 32, 0.2), task("alibi-s0-bb", 16, None)]
    _, page, svg = written(rows, tmp_path)
    assert pipes(page)[1][2:] == [["alibi", "undefined", "–"], ["rope", "80.0 [49.0, 94.3]", "20.0 [5.7, 51.0]"]]
    assert "Each cell of same\\_targets is a perplexity" in page and "Each cell of exact\\_match is the perc" in page
    assert "exact match in percent · 2,048 targets" in page and "trained up to size 16" in page
    words = picture_words(svg)
    assert {"exact match in percent", "perplexity (log scale)", "0", "20", "40", "60", "80", "100"} <= set(words)


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
    assert pipes(page)[0][2] == ["rope", "3.000 [2.895, 3.095]", "3.200 [3.095, 3.295]"]
    assert page.startswith("# Loss by evaluation length") and "a mean loss in nats per token" in page
    assert "loss in nats per token · 2,048 targets" in printed
    assert {"Loss on the same targets as context grows", "loss in nats per token"} <= set(picture_words(svg))
    _, page, svg = written(rows, tmp_path, measure=BITS_PER_BYTE)
    assert pipes(page)[0][2] == ["rope", "1.500 [1.447, 1.548]", "1.600 [1.547, 1.648]"]
    assert {"Bits per byte on the same targets as context grows", "bits per byte"} <= set(picture_words(svg))


def test_a_table_without_the_measure_is_left_out_in_words(tmp_path: Path) -> None:
    rows = [*SEEDS, row("rope-s0-aa", 128, 20.0, protocol="sliding", bits_per_byte=1.5)]
    printed, page, _ = written(rows, tmp_path, measure=BITS_PER_BYTE)
    assert "same_targets is left out: its rows lack bits per byte" in printed and len(pipes(page)) == 1
    with pytest.raises(Misuse, match="no row has exact match"):
        written(rows, tmp_path, measure=EXACT_MATCH)


def test_the_choices_of_the_command_line_are_the_measures_there_are() -> None:
    assert [choice.value for choice in Choice] == list(MEASURES)


def test_linear_ticks_are_even_and_have_as_many_decimals() -> None:
    assert tick_labels(y_ticks(1.78, 2.03, 9), log=False) == ["1.80", "1.85", "1.90", "1.95", "2.00"]
    assert tick_labels(y_ticks(0, 100, 7), log=False) == ["0", "20", "40", "60", "80", "100"]


def test_titles_come_from_the_protocols_and_old_ones_keep_a_plain_one(tmp_path: Path) -> None:
    rows = [row("rope-s0-aa", 128, 20.0, protocol=name) for name in ("truncated", "bygone_way")]
    _, _, svg = written(rows, tmp_path)
    words = set(picture_words(svg))
    assert {"Perplexity of truncated documents", "Perplexity, bygone_way", "length, tokens"} <= words


def test_subtitles_break_between_facts() -> None:
    assert wrapped("1,024 targets · stride 32 · 3 seeds", 25) == ["1,024 targets · stride 32", "3 seeds"]
    assert wrapped("1,024 targets · stride 32", 100) == ["1,024 targets · stride 32"]


def test_controls_are_no_curves() -> None:
    controls = [
        row("rope-s0-aa", 256, 30.0, control="window", window="sliding 128", control_of="full"),
        row("rope-s0-aa", 256, 99.0, control="shuffled", control_of="full"),
    ]
    (table,) = tables([*SEEDS, row("rope-s0-aa", 256, 40.0), *controls], labels(SEEDS))
    assert table.curves == ("rope",) and table.cells["rope", 256].ppl == pytest.approx(40)


def verdict(
    curve: str,
    length: int,
    word: str,
    difference: float | None = None,
    shuffled: float | None = None,
    targets: tuple[str, int] = ("ab12cd34ef56", 32),
) -> Verdict:
    def about(value: float | None) -> Estimate | None:
        return value if value is None else Estimate(value, value - 0.01, value + 0.01, 0.005, 0.03, 3, 8)

    control = "" if difference is None else "cropped"
    return Verdict(curve, length, word, control, about(difference), about(shuffled), *targets)


CURVES = ("alibi", "learned", "rope", "xpos")
LONGER = [row(f"{curve}-s0-aa", n, 20.0 + n / 100) for curve in CURVES for n in (128, 256, 512)]
VERDICTS = [
    verdict("alibi", 256, "uses", math.log(0.9), math.log(1.05)),
    verdict("alibi", 512, "ignores", 0.0),
    verdict("learned", 256, "undefined"),
    verdict("rope", 256, "breaks", math.log(1.5), 0.0),
    verdict("xpos", 512, "unclear", math.log(1.02)),
]
USABLE = [Usable("alibi", 512, True, doubtful=True), Usable("learned", 128, False), Usable("rope", 128, False)]


def test_a_verdict_marks_its_cell_and_one_line_says_what_marks_mean(tmp_path: Path) -> None:
    printed, page, _ = written(LONGER, tmp_path, verdicts=VERDICTS, usable=USABLE)
    cells = {line[0]: [cell.split(" [")[0] for cell in line[1:]] for line in pipes(page)[0][2:]}
    assert cells == {
        "alibi": ["21.28", "22.56 ▼", "25.12 ="],
        "learned": ["21.28", "22.56", "25.12"],
        "rope": ["21.28", "22.56 ▲", "25.12"],
        "xpos": ["21.28", "22.56", "25.12 ?"],
    }
    for text in (printed, page):
        assert text.count("▼ used, = ignored, ▲ breaks the model, ? unclear") == 1
    assert "22.56 ▲" in printed
    printed, page, _ = written(LONGER, tmp_path)
    assert "▼" not in printed + page and "Context beyond" not in printed + page


def test_a_verdict_marks_the_table_of_its_own_targets_alone(tmp_path: Path) -> None:
    """A group is often measured again with more targets, another stride or other text."""
    others: list[dict[str, Any]] = [
        {"targets_hash": "ffff0000"},
        {"stride": 64},
        {"corpus": "pg19", "targets_hash": "eeee0000"},
        {"protocol": "sliding"},
    ]
    more = [row(f"{curve}-s0-aa", 256, 30.0, **other) for other in others for curve in CURVES]
    _, page, _ = written(LONGER + more, tmp_path, verdicts=VERDICTS)
    assert page.count("22.56 ▲") == page.count("22.56 ▼") == 1 and not re.search("30.00 [▼=▲?]", page)
    of_other = [verdict("rope", 256, "breaks", 0.4, targets=("ffff0000", 32))]
    _, page, _ = written(LONGER + more, tmp_path, verdicts=of_other)
    assert page.count("30.00 ▲") == 1 and not re.search("22.56 [▼=▲?]", page)
    _, page, _ = written(LONGER + more[:4], tmp_path, verdicts=VERDICTS, mixed_targets=True)
    assert not re.search("[0-9] [▼=▲?]", page)


def test_verdicts_are_told_in_percent_of_perplexity_with_their_control(tmp_path: Path) -> None:
    printed, page, _ = written(LONGER, tmp_path, verdicts=VERDICTS, usable=USABLE)
    assert pipes(page)[1] == [
        ["curve", "usable length", "256", "512"],
        ["---", "---:", "---:", "---:"],
        [
            "alibi",
            "512+?",
            "uses −10.0 %<br>[−10.9, −9.1] cropped<br>shuffled +5.0 % [+4.0, +6.1]",
            "ignores 0.0 %<br>[−1.0, +1.0] cropped",
        ],
        ["learned", "128", "undefined", "–"],
        ["rope", "128", "breaks +50.0 %<br>[+48.5, +51.5] cropped<br>shuffled 0.0 % [−1.0, +1.0]", "–"],
        ["xpos", "–", "–", "unclear +2.0 %<br>[+1.0, +3.0] cropped"],
    ]
    assert "## Context beyond the training length" in page and "lies within 1 %" in page
    for text in ("uses −10.0 %", "[−10.9, −9.1] cropped", "shuffled +5.0 % [+4.0, +6.1]", "512+?"):
        assert text in printed
    console = screen(60)
    write(LONGER, labels(LONGER), tmp_path, console=console, verdicts=VERDICTS, usable=USABLE)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "shuffled +5.0 % [+4.0, +6.1]" in printed and printed.count("512+") == 2  # a piece a length


def test_changes_of_perplexity_stay_short_however_large() -> None:
    shown = [percent(math.log(x)) for x in (1.0, 1.0004, 0.9996, 1.0006, 0.5, 1.9994, 1.9996, 12.0, 1000.4, 1e9)]
    assert shown[:4] == ["0.0 %", "0.0 %", "0.0 %", "+0.1 %"]
    assert shown[4:] == ["−50.0 %", "+99.9 %", "+100 %", "+1,100 %", "+99,940 %", "+1.0e+11 %"]
    assert percent(1e6) == "+1.0e+306 %"


def test_verdicts_are_kept_as_numbers(tmp_path: Path) -> None:
    written(LONGER, tmp_path, verdicts=VERDICTS)
    with open(tmp_path / "verdicts.csv", newline="") as file:
        back = list(csv.DictReader(file))
    names = "curve,length,word,control,difference,low,high,p,shuffled,shuffled_low,shuffled_high,seeds,documents"
    assert list(back[0]) == names.split(",") and len(back) == len(VERDICTS)
    first = VERDICTS[0]
    assert first.difference is not None and first.shuffled is not None
    numbers = [float(back[0][name]) for name in ("difference", "low", "high", "p", "seeds", "documents")]
    assert numbers == [first.difference.value, first.difference.low, first.difference.high, 0.03, 3, 8]
    assert float(back[0]["shuffled_low"]) == first.shuffled.low
    assert [back[2][name] for name in ("word", "control", "difference", "seeds")] == ["undefined", "", "", ""]


def test_breaking_points_are_hollow_in_the_picture(tmp_path: Path) -> None:
    def hollow(svg: str) -> int:
        return len(re.findall(r'<use [^>]*style="fill: #ffffff; stroke: #\w+; stroke-width: 1.6', svg))

    _, _, svg = written(LONGER, tmp_path)
    assert hollow(svg) == 0 and not any("hollow" in text for text in picture_words(svg))
    _, _, svg = written(LONGER, tmp_path, verdicts=VERDICTS)
    assert hollow(svg) == 1 and any("hollow: breaks" in text for text in picture_words(svg))


MANY = [row(f"c{n}-s{seed}-aa", length, n + 20 + length / (10 + n) + seed) for n in range(13) for seed in (0, 1)
        for length in (128, 256, 512)]  # fmt: skip


def test_curves_that_are_too_many_to_follow_are_ranked_too(tmp_path: Path) -> None:
    written(MANY, tmp_path, usable=[Usable("c3", 512, True), Usable("c5", 128, False)])
    words = picture_words((tmp_path / "ranking.svg").read_text())
    assert {f"c{n}" for n in range(13)} <= set(words)
    assert {"128, trained", "256", "512", "usable length", "512+", "128"} <= set(words)
    assert any("range of the seeds" in word for word in words)
    assert len(re.findall("stroke-width: 1.2; ", (tmp_path / "ranking.svg").read_text())) == 2 * 13  # one at each end
    assert (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")
    again = (tmp_path / "ranking.svg").read_bytes()
    written(MANY, tmp_path, usable=[Usable("c3", 512, True), Usable("c5", 128, False)])
    assert (tmp_path / "ranking.svg").read_bytes() == again
    written([r for r in MANY if r["scheme"] != "c0"], tmp_path)
    assert not list(tmp_path.glob("ranking.*"))


def test_a_ranking_is_by_where_curves_end_and_those_without_an_end_are_last() -> None:
    rows = [row("a-s0-aa", 128, 20.0), row("a-s0-aa", 256, 50.0), row("b-s0-aa", 128, 30.0), row("b-s0-aa", 256, 30.0)]
    rows += [row("learned-s0-aa", 128, 10.0), row("learned-s0-aa", 256, None, "undefined"), row("c-s0-aa", 128, 9.0)]
    (table,) = tables(rows, labels(rows))
    assert ranking.ranked(table) == ["b", "a", "c", "learned"]
    shares = [
        row(f"{name}-s0-aa", 8, 20.0, protocol="exact_match", exact_match=x) for name, x in (("a", 0.2), ("b", 0.9))
    ]
    assert ranking.ranked(*tables(shares, labels(shares))) == ["b", "a"]


def test_what_lies_far_out_in_a_ranking_is_written_and_the_rest_has_the_room() -> None:
    rows = [row(f"c{n}-s0-aa", length, 20.0 + n + length / 100) for n in range(4) for length in (128, 256)]
    rows += [row("worse-s0-aa", 128, 20.0), row("worse-s0-aa", 256, 5000.0), row("bad-s0-aa", 128, 900.0)]
    rows += [
        row("bad-s0-aa", 256, 7000.0),
        row("learned-s0-aa", 128, 22.0),
        row("learned-s0-aa", 256, None, "undefined"),
    ]
    (table,) = tables(rows, labels(rows))
    words = picture_words(ranking.pictures(table)[1].decode())
    assert {"→ 5000", "→ 900.0 … 7000", "undefined at 256"} <= set(words)
    low, high = ranking.reach(table, [128, 256])
    assert 10**low < 20.0 < 25.56 < 10**high < 30.0


@pytest.mark.parametrize("count", [1, 2, 6, 7, 40])
def test_a_ranking_shows_a_few_lengths_from_training_to_the_longest(count: int) -> None:
    rows = [row("a-s0-aa", 64 + 64 * n, 20.0, train_length=128) for n in range(count + 1)]
    (table,) = tables(rows, labels(rows))
    shown = ranking.dots(table)
    assert shown == sorted(shown) and (shown[0], shown[-1]) == (128, 64 + 64 * count) and len(shown) <= 6
    ranking.pictures(table)


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
        ["", "128*", "256"],
        ["alibi", r"\textbf{21.00}", "--"],
        ["", r"{\scriptsize [18.90,\,23.10]}", ""],
        ["learned", "25.00", "undefined"],
        ["", r"{\scriptsize [22.50,\,27.50]}", ""],
        ["none", r"\textbf{21.00}", "70.00"],
        ["", r"{\scriptsize [18.90,\,23.10]}", ""],
        ["rope", "23.63", r"\textbf{60.00}\,{\scriptsize (2/3 ok, non-finite)}"],
        ["", r"{\scriptsize [20.00,\,30.00]}", r"{\scriptsize [40.00,\,90.00]}"],
    ]
    assert r"2,048 targets ab12cd34 $\cdot$ stride 32" in text and "the lowest of each length bold" in text
    written([task("rope-s0-aa", 16, 0.8), task("alibi-s0-bb", 16, 0.9)], tmp_path)
    assert r"alibi & \textbf{90.0} \\" in (tmp_path / "table.tex").read_text()


ODD_NAMES = ["_hidden", "$10^4$", "a<b>&c", "x|y*z~", "50% #1", r"back\slash{}", "rope · window bca 64", "[bold]", "*`"]


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


def test_html_is_a_flag_of_report_alone() -> None:
    assert translate("report", ["--html", "group=g"]) == ["html=true", "group=g"]
    assert translate("report", ["--html=false", "--runs", "a*"]) == ["html=false", "runs='a*'"]
    with pytest.raises(Misuse, match="posexp eval has no flag --html"):
        translate("eval", ["--html"])


def measured_run(folder: Path, losses_at: dict[int, float]) -> None:
    """A run folder with rows and kept losses of 40 targets in 4 documents, all of that loss but for a little."""
    from posexp import jsonl
    from posexp.commands import TrainCommand
    from posexp.runs import Run

    scheme = {"_target_": "posexp.schemes.rope.Rope", "base": 10000.0, "fraction": 1.0}
    run = Run.of(TrainCommand(scheme=scheme, label="rope", results=str(folder), group="g"))
    run.create(TrainCommand(scheme=scheme, label="rope", results=str(folder), group="g"))
    (run.folder / "provenance.json").write_text('{"commit": "c0ffee"}')
    target_N = np.arange(40)
    for length, nll in losses_at.items():
        made = row(run.name, length, math.exp(nll), scheme="rope", trained_window="full", transform="", control="")
        nll_N = (nll + 0.001 * np.sin(target_N)).astype(np.float32)
        kept = Losses(nll_N, target_N, np.full(40, length, np.int32), (target_N // 10).astype(np.int32), nll_N > 0)
        losses.keep(run.folder, made, kept)
        jsonl.append(run.rows, made)


def test_the_command_judges_by_the_kept_losses_and_writes_the_page(tmp_path: Path, capsys: Any) -> None:
    measured_run(tmp_path, {128: 3.0, 256: 3.0, 512: 3.4})
    command = ReportCommand(results=str(tmp_path), group="g", html=True, measure=Choice.nll)
    report(command)
    folder = tmp_path / "g" / "report"
    page = (folder / "table.md").read_text()
    assert pipes(page)[0][2][1:] == ["3.000 [2.895, 3.095]", "3.000 = [2.895, 3.095]", "3.400 ▲ [3.295, 3.495]"]
    assert [line[:2] for line in pipes(page)[1][2:]] == [["rope", "256"]] and "breaks +49.2 %" in page
    html = (folder / "page.html").read_text()
    assert html.startswith("<!doctype html>") and "c0ffee" in html and "posexp.schemes.rope.Rope" in html
    assert "posexp report" in html
    capsys.readouterr()
    for path in (tmp_path / "g").glob("rope-*/losses/*.npz"):
        path.unlink()
    shutil.rmtree(folder)
    report(ReportCommand(results=str(tmp_path), group="g"))
    told = [line for line in capsys.readouterr().err.splitlines() if "losses" in line]
    assert len(told) == 1 and "repeat the eval command" in told[0]
    assert "▲" not in (folder / "table.md").read_text() and not (folder / "page.html").exists()
    assert len((folder / "verdicts.csv").read_text().splitlines()) == 1
