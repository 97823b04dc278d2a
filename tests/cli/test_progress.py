"""What a long command says while it works, and at its end."""

import os
from pathlib import Path

import pytest
from support.command import TINY, here, run_of, world, write_texts

from posexp.config.sections import DataConfig, Source
from posexp.data.load import load_store
from posexp.output import console
from posexp.output.console import progress, within
from posexp.sweeps import cells

RUN = "results/default/"


@pytest.fixture
def finished(tmp_path_factory, tmp_path) -> Path:
    return world(tmp_path_factory, tmp_path)


@pytest.fixture
def every_line(monkeypatch) -> None:
    """Say a line for every step instead of one in ten seconds."""
    monkeypatch.setattr(progress, "seconds_between_lines", 0.0)
    monkeypatch.setattr(console, "MIN_SECONDS", 0.0)


def test_the_time_left_covers_the_runs_that_have_not_begun(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    bar = progress("", 0, "%", runs=3)
    now[0] = 50  # spent on loading
    bar.begin_run(0)
    bar.begin_run(100)
    bar.at("rope: sliding 512")
    now[0] = 60
    with within("cell 1 of 2"):
        bar.advance(50)  # of 100 here, and of an expected 50 in the third run
    bar.skip(50)
    assert capsys.readouterr().err == "cell 1 of 2 · run 2 of 3 · rope: sliding 512: 33 %, ETA 0:20\n"
    bar.begin_run(50)
    now[0] = 70
    bar.advance(50)
    assert capsys.readouterr().err == "run 3 of 3 · rope: sliding 512: 100 %, ETA 0:00\n"


def test_an_hour_of_progress_is_not_a_flood(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    bar = progress("rope", 3600, "%")
    for now[0] in range(1, 3601):
        bar.advance()
    assert 60 < len(capsys.readouterr().err.splitlines()) < 120


def test_a_bar_costs_little_however_small_its_units(monkeypatch):
    seen = []
    monkeypatch.setattr(progress, "update", lambda self, done, state: seen.append(done))
    bar = progress("token store", 10_000)
    for _ in range(10_000):
        bar.advance()
    assert seen[-1] == 10_000 and len(seen) < 1000


def test_eval_counts_what_is_left_of_all_its_runs(finished, every_line):
    answer = here("eval", "--lengths", "4,16,32", cwd=finished)
    assert answer.code == 0, answer.err
    lines = [line for line in answer.err.splitlines() if " ETA " in line]
    assert lines[0].startswith("run 1 of 2 · learned-s0-") and lines[-1].startswith("run 2 of 2 · rope-s0-")
    assert lines[-1].endswith(": 100 %, ETA 0:00"), "what is undefined, shared or measured already is not counted"
    shares = [int(line.rpartition(" %")[0].rpartition(": ")[2]) for line in lines]
    assert shares[0] < 50 and max(shares) == 100


def test_a_token_store_is_counted_by_its_bytes(tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(console, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(progress, "update", lambda self, done, state: shares.append(done / self.total))
    write_texts(tmp_path / "text")
    config = DataConfig(Source.files, paths=str(tmp_path / "text"), cache=str(tmp_path / "cache"), vocab_size=300)
    load_store(config)
    assert shares == sorted(shares) and shares[-1] == 1
    assert len(shares) > 100, "54 documents for the tokenizer, and 60 for the tokens"


def test_a_cell_says_its_place_and_what_is_left(capsys):
    with cells.cell(0):
        assert console.outer == []
    assert capsys.readouterr().err == ""
    cells.count(3)
    try:
        with cells.cell(0):
            assert console.outer == ["cell 1 of 3"]
        with pytest.raises(ValueError), cells.cell(1):
            raise ValueError
        with pytest.raises(KeyboardInterrupt), cells.cell(2):
            raise KeyboardInterrupt
        with cells.cell(2):
            pass
    finally:
        cells.forget()
    said = capsys.readouterr().err.splitlines()
    assert said == ["cell 1 of 3 has ended, 2 to do, ETA 0:00", "cell 2 of 3 has ended, 1 to do, ETA 0:00"]
    assert cells.VARIABLE not in os.environ and console.outer == []


def test_train_ends_with_its_table_its_folder_and_the_next_commands(finished):
    words = ["+scheme=rope", *TINY, "--lengths", "8,16,64"]
    answer = here("train", *words, cwd=finished)
    lines = answer.out.splitlines()
    assert lines[0] == "perplexity, same_targets (* training length)" and len(lines) <= 15
    assert "16*" in lines[2] and " rope " in answer.out and " %" in answer.out
    assert str(run_of(finished).relative_to(finished)) in lines
    assert "next: posexp report --html " in answer.out
    assert f"posexp train -m {' '.join(words)} seed=0,1,2" in answer.out


def test_a_sweep_ends_with_one_table_of_its_curves(finished):
    answer = here("train", "-m", "+scheme=rope,learned", "seed=0", *TINY, "--lengths", "8,16,64", cwd=finished)
    assert answer.out.count("perplexity, same_targets") == 1
    for word in ("undefined", f"2 of 2 runs measured, in {RUN[:-1]}", "posexp compare rope learned", "seed=0,1,2"):
        assert word in answer.out, word
    assert "-m -m" not in answer.out and "seed=0 " not in answer.out


@pytest.mark.slow
def test_a_sweep_counts_its_cells_and_says_which_have_no_rows(tmp_path):
    write_texts(tmp_path / "text")
    hostile = ["train.lr=1e-3,1e12", *TINY, "--lengths", "8", "group=g"]
    answer = here("train", "-m", "+scheme=rope", *hostile, cwd=tmp_path)
    assert answer.code == 1 and "cell 1 of 2 has ended, 1 to do, ETA " in answer.err
    assert "1 of 2 runs measured, in results/g" in answer.out and "posexp runs" in answer.out
    assert cells.VARIABLE not in os.environ


def test_eval_and_report_end_with_what_may_follow(finished):
    evaluated = here("eval", cwd=finished).out.splitlines()
    assert evaluated[0] == f"2 runs in {RUN[:-1]}, rows.jsonl of each"
    assert evaluated[1].startswith("next: posexp report ") and "posexp compare learned rope" in evaluated[2]
    alone = here("eval", "--runs", "rope-*", cwd=finished).out.splitlines()
    assert alone[0].endswith("/rows.jsonl") and len(alone) == 2
    reported = here("report", cwd=finished).out.splitlines()
    assert reported[-2].startswith("next: posexp report --html ")
    assert reported[-1].split("  ")[3] == "posexp compare learned rope", "no power from a single seed"


def test_the_commands_that_follow_can_be_typed(finished):
    (finished / "results" / "default").rename(finished / "results" / "g")
    ending = here("eval", "group=g", cwd=finished).out
    (compare,) = (line.split("  ")[3] for line in ending.splitlines() if "posexp compare" in line)
    assert compare == "posexp compare learned rope group=g"
    assert here(*compare.split()[1:], cwd=finished).code == 0
