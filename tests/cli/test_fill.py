"""scripts/fill: the numbers of a study's page are those of its rows, and a stale page fails here."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from support.rows import row_of

from posexp.errors import Misuse
from posexp.evaluation.rows import Row, rows_to_csv
from scripts.docs.common import fill_script

ROOT = Path(__file__).resolve().parents[2]


FILL = fill_script()


@pytest.mark.parametrize("study", FILL.templates())
def test_a_page_is_what_its_template_and_rows_give(study):
    page = FILL.folder_of(study) / "README.md"
    assert page.read_text() == FILL.render(study), f"run scripts/fill {study}"


def test_the_pages_with_numbers_have_a_template():
    assert {"results", "books", "demo", "papers", "protocols", "rope-twice", "schemes", "tasks"} <= set(
        FILL.templates()
    )


def row(curve: str, seed: int, length: int, ppl: float, **columns) -> Row:
    values = {"length": length, "seed": seed, "status": "ok", "nll": math.log(ppl), "ppl": ppl} | columns
    return row_of(run=f"{curve}-s{seed}-aa", scheme=curve, **values)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of two curves and two seeds. One run has another set of targets too, and there is a control."""
    rows = [
        *(row("rope", seed, 128, 100.0) for seed in (0, 1)),
        *(row("rope", seed, 256, 100.0 * factor) for seed, factor in ((0, 1.1), (1, 1.4))),
        *(row("rope", seed, 512, 100.0 * factor) for seed, factor in ((0, 0.96), (1, 0.96))),
        *(row("alibi", seed, 128, 104.0) for seed in (0, 1)),
        *(row("alibi", seed, 256, 103.99) for seed in (0, 1)),
        row("rope", 0, 256, 9.0, targets_hash="ffffffffffff"),
        *(row("rope", seed, 256, 123.0, control="shuffled", control_of="full") for seed in (0, 1)),
        *(row("rope", seed, 128, 50.0, protocol="nonoverlapping") for seed in (0, 1)),
        *(row("rope", seed, 256, 51.0, protocol="nonoverlapping") for seed in (0, 1)),
        *(row("rope", seed, 256, 101.0, window="bca 64") for seed in (0, 1)),
        row("rope", 0, 1024, 1.0, status="out of memory"),
        *(
            row("rope", 0, distance, 1.0, protocol="by_distance", accuracy=accuracy, targets=targets)
            for distance, accuracy, targets in ((64, 1.0, 50), (128, 0.9, 30), (256, 0.5, 10))
        ),
    ]
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "rows.csv").write_text(rows_to_csv(rows))
    (folder / "verdicts.csv").write_text(
        "curve,length,word,control,difference,low,high\nrope,256,breaks,window,0.3,0.2,0.4\nalibi,256,undefined,,,,\n"
    )
    (folder / "compare").mkdir()
    (folder / "compare" / "x.csv").write_text(
        "protocol,base,other,length,difference,low,high,p\n"
        "same_targets,rope,alibi,128,0.04,0.03,0.05,0.02\n"
        "same_targets,rope,t5,128,0.04,0.03,0.05,0.03\n"
        "same_targets,rope,t5 · yarn,128,0.04,0.03,0.05,0.00001\n"
    )
    monkeypatch.setattr(FILL, "STUDIES", tmp_path)
    for cached in (FILL.rows_of, FILL.cells, FILL.csv_rows):
        cached.cache_clear()
    yield folder
    for cached in (FILL.rows_of, FILL.cells, FILL.csv_rows):
        cached.cache_clear()


def filled(folder: Path, template: str) -> str:
    (folder / "README.md.j2").write_text(template)
    return FILL.render("one")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ('ppl("rope", 128)', "100.0"),
        ('ppl("rope", 256)', "124.1"),  # sqrt(110 x 140)
        ('ppl("rope", 256, seeds=[1])', "140.0"),
        ('ppl("rope · window bca 64", 256)', "101.0"),
        ('seeds("rope", 256)', "[110.0, 140.0]"),
        ('seeds("rope", 256, brackets=false, places=0)', "110 to 140"),
        ('change("rope", 256)', "+24"),
        ('change("rope", 256, places=1)', "+24.1"),
        ('change("rope", 256, sign=false)', "24"),
        ('change("rope", 512)', "−4.0"),
        ('change("rope", 512, since=256)', "−23"),
        ('change("alibi", 256)', "0.0"),
        ('change("rope", 256, protocol="nonoverlapping")', "+2.0"),
        ('by_seed("rope", 256)', "+10 and +40"),
        ('times("rope", 256)', "1.24"),
        ('less("alibi", "rope", 128)', "+4.0"),
        ('shuffled("rope", 256)', "−0.9"),
        ('growth("rope", "alibi", 256)', "+24.1 [−73.2, +474]"),  # half width: 12.706 x (log 1.4 - log 1.1) / 2
        ('recalled("rope", 64, 256)', "80"),  # (27 + 5) / 40
        ('verdict("rope", 256)', "breaks +35.0 [+22.1, +49.2]"),
        ('verdict("rope", 256, value=false)', "breaks [+22.1, +49.2]"),
        ('verdict("alibi", 256)', "undefined"),
        ('pair("rope", "alibi", 128, "same_targets")', "+4.1 [+3.0, +5.1]"),
        ('holm("rope", 128, "same_targets")', "{'alibi': 0.04, 't5': 0.04}"),
    ],
)
def test_numbers(study, expression, text):
    assert filled(study, f"{{{{ {expression} }}}}\n") == f"{text}\n"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ('ppl("roppe", 128)', "has no curve 'roppe', did you mean 'rope'?; there are rope, alibi"),
        ('ppl("rope", 300)', "has no length 300; there are 128, 256, 512"),
        ('ppl("rope", 1024)', "has no length 1024"),
        ('ppl("rope", 128, "sliding")', "has no protocol 'sliding'; there are same_targets, nonoverlapping"),
        ('ppl("rope", 128, seeds=[7])', "has no seed 7; there are 0, 1"),
        ('verdict("rope", 512)', "has no length '512'; there are 256"),
        ('pair("rope", "fire", 128, "same_targets")', "has no other 'fire'"),
        ('ppl("rope", 128, study="two")', "two/rows.csv cannot be read"),
        ("pple(1)", "'pple' is undefined"),
        ('ppl("rope")', "missing 1 required positional argument: 'length'"),
        ("ppl(", "line 2"),
    ],
)
def test_a_mistake_is_one_clear_error(study, expression, reason):
    with pytest.raises(Misuse) as error:
        filled(study, f"first\n{{{{ {expression} }}}}\n")
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_value_is_rounded_once_and_crosses_ten(study):
    assert FILL.in_percent(math.log(1.0996)) == "+10" and FILL.in_percent(math.log(1.0994)) == "+9.9"
    assert FILL.in_percent(math.log(1.4146), 1) == "+41.5" and FILL.in_percent(math.log(1.4146)) == "+41"
    assert FILL.in_percent(-1e-6) == "0.0" and FILL.in_percent(math.log(13.34), 1) == "+1,234"


def test_the_command_writes_a_page_and_check_finds_a_stale_one(study, monkeypatch, capsys):
    (study / "README.md.j2").write_text('{{ ppl("rope", 128) }}\n')
    for words, code, said in (
        (["--check"], 1, "stale: one"),
        (["one"], 0, "written: one"),
        (["--check"], 0, ""),
        (["two"], 2, "no page 'two' has a README.md.j2; there are one"),
    ):
        monkeypatch.setattr(sys, "argv", ["fill", *words])
        assert FILL.main() == code and said in capsys.readouterr().err
    assert (study / "README.md").read_text() == "100.0\n"


@pytest.mark.slow
def test_the_script_runs_by_itself():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "fill", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
