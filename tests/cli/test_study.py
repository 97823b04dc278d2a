"""scripts/study: what can be done of a study within a time limit, resumed, and packed.

scripts/publish: what is kept of it."""

import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support import hostile
from support.command import here, publish

from posexp.config.digest import digest
from posexp.evaluation.rows import Row, read_rows, rows_of_csv, rows_to_csv
from posexp.runs.run import Run, find_runs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TINY = ["model.d_model=32", "model.n_layer=1", "model.n_head=2", "train.length=32", "train.batch_tokens=256"]
TINY += ["eval.lengths=[32,64]", "eval.targets=64", "data.tokenizer=bytes"]


def study(folder: Path, *words: str, results: str = "results") -> subprocess.CompletedProcess[str]:
    places = [f"results={results}", "group=g", "data.cache=cache"]
    environment = {**os.environ, "OUT": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / "study"), *words, *(places if len(words) > 2 else [])]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_after_the_minutes_every_process_saves_and_stops(tmp_path: Path):
    ended = study(tmp_path, "demo", "0.4", "processes=2", "+scheme=none,alibi", "train.tokens=100_000_000", *TINY)
    assert ended.returncode == 0 and "exit codes [143, 143]" in ended.stderr, ended.stdout + ended.stderr
    assert "interrupted" not in ended.stdout


def test_two_processes_share_a_study_and_where_it_is_unpacked_nothing_is_done_again(tmp_path: Path):
    words = ["demo", "4", "processes=2", "+scheme=none,alibi", "train.tokens=20_000", *TINY]
    done = study(tmp_path, *words)
    assert len(re.findall(r"^(?:alibi|none)-\S+ +done ", done.stdout, re.MULTILINE)) == 2, done.stdout + done.stderr
    whole = tmp_path / "whole"
    whole.write_bytes(b"".join(part.read_bytes() for part in sorted(tmp_path.glob("g.tar.xz.*"))))
    with tarfile.open(whole) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "elsewhere", filter="data")
    assert sum(name.endswith("rows.jsonl") for name in names) == 2 and "g/report/rows.csv" in names
    assert not any("checkpoint" in name for name in names)
    again = study(tmp_path, *words, results="elsewhere")
    assert "2 done, 0 to do" in again.stderr and "training from step" not in again.stderr


def test_a_study_that_is_not_there_is_refused_in_a_line(tmp_path: Path):
    for words in (["nosuch", "1"], ["demo", "soon"], ["demo"]):
        refused = study(tmp_path, *words)
        assert refused.returncode == 2 and refused.stderr.startswith("scripts/study <experiment> <minutes>")
        assert "Traceback" not in refused.stderr


def lines_of(path: Path) -> list[dict]:
    """The rows of a file without empty columns, which a CSV file cannot tell from missing ones."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if value not in ("", None)} for line in lines]


def test_a_published_group_comes_back_with_the_same_rows_and_tables(tmp_path: Path):
    words = ["+scheme=none,alibi", "data=files", "data.paths=text", "data.cache=cache", "train.tokens=2_000", *TINY]
    hostile.world(tmp_path, *words, "eval.protocols=[same_targets]", "wandb.mode=disabled", "group=g")
    group, back = tmp_path / "results" / "g", tmp_path / "back" / "g"
    assert here("report", "group=g", cwd=tmp_path).code == 0
    assert publish("results/g", "g", cwd=tmp_path) == (0, "")
    assert publish("--unpack", "g", "back", cwd=tmp_path)[0] == 0
    for run in find_runs(str(tmp_path / "results"), "g"):
        again = Run(back / run.name)
        assert lines_of(again.rows) == lines_of(run.rows)
        assert (again.folder / "config.yaml").read_bytes() == (run.folder / "config.yaml").read_bytes()
        assert again.provenance() == run.provenance() and again.status() == run.status()
    assert here("report", "group=g", "results=back", cwd=tmp_path).code == 0
    for name in ("rows.csv", "verdicts.csv", "table.md"):
        assert (back / "report" / name).read_bytes() == (group / "report" / name).read_bytes()
    page = (tmp_path / "results/studies/g/README.md").read_text()
    assert "scripts/publish --unpack g && posexp report group=g" in page and "posexp train" in page


def test_a_long_curve_is_thinned():
    script = runpy.run_path(str(ROOT / "scripts" / "publish"))
    curve = [{"step": step, "loss": 1.0} for step in range(1000)]
    kept = script["thinned"]([{"step": 0, "status": "running"}, *curve, {"step": 999, "status": "done"}])
    assert len(kept) == 52 and kept[1] == curve[0] and kept[-2] == curve[-1] and kept[-1]["status"] == "done"


def test_a_field_of_rows_csv_says_what_it_was():
    values = ["NA", "null", "12", "1e5", 12, 12.0, 0.1 + 0.2, True, "true", 'a "b", c', "full", "NaN", "é"]
    needed = {
        "run": "a",
        "seed": 0,
        "train_length": 8,
        "length": 8,
        "protocol": "p",
        "window": "full",
        "targets_hash": "1",
    }
    rows = [Row.of(needed | {"x": value}) for value in values] + [Row.of(needed | {"nll": 0.1 + 0.2})]
    again = rows_of_csv(rows_to_csv(rows), fail)
    assert list(map(repr, again)) == list(map(repr, rows))
    assert rows_of_csv(rows_to_csv([Row.of(needed | {"x": "", "nll": None})]), fail) == [Row.of(needed)], (
        "empty is missing"
    )


def test_published_runs_load_for_ever(tmp_path: Path):
    seen = set()
    for study in ("demo", "schemes", "tasks"):
        shutil.copytree(ROOT / "results/studies" / study, tmp_path / "results/studies" / study)
        lines = tmp_path / "results/studies" / study / "runs.jsonl"
        lines.write_bytes(b"".join(line for line in lines.read_bytes().splitlines(True) if b"-s0-" in line))
        assert publish("--unpack", study, cwd=tmp_path)[0] == 0
        with (lines.parent / "rows.csv").open(newline="") as file:
            rows = [
                {
                    key: value
                    for key, value in row.items()
                    if value not in ("", "NA", "null") and key not in ("curve", "recipe")  # only published
                }
                for row in csv.DictReader(file)
            ]
        for run in find_runs(str(tmp_path / "results"), study):
            config = run.config()
            assert run.name == f"{config.label}-s0-{digest(config)}" and run.status()["status"] == "done"
            fields = [
                {
                    key: value if isinstance(value, str) else json.dumps(value)
                    for key, value in row.values().items()
                    if value not in ("", None)
                }
                for row in read_rows(run, fail)
            ]
            assert fields == [row for row in rows if row["run"] == run.name] != []
            seen.add(config.label)
    assert {"xpos", "t5", "alternate-rope-none", "drope-rope", "randomized-rope"} <= seen


def fail(line: str) -> None:
    raise AssertionError(line)
