"""The commands of the README on default data, with a model that a test can wait for: one question has one answer,
whatever lengths are asked for and in whichever order."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.command import here, posexp, run_of

SMALL = ["model.d_model=16", "model.n_layer=1", "model.n_head=1", "train.tokens=20_000", "data.cache=cache"]
LESS = ["eval.targets=1024", "wandb.mode=disabled"]  # a training run's own words, which posexp eval repeats
LENGTHS = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192]  # with parts of the training length


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("default")
    answer = posexp("train", "+scheme=rope", *SMALL, *LESS, cwd=folder)
    assert answer.code == 0, answer.err
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_of(folder) / "rows.jsonl").read_text().splitlines()]


def measured(folder: Path, *orders: str) -> list[str]:
    said = []
    for lengths in orders:
        answer = here("eval", "--lengths", lengths, "wandb.mode=disabled", cwd=folder)
        assert answer.code == 0, answer.err
        said.append(answer.err)
    return said


def content(rows: list[dict[str, Any]]) -> dict[tuple, tuple]:
    return {
        (row["protocol"], row["length"], row["control"]): (row["targets_hash"], row["documents"], row["nll"])
        for row in rows
    }


@pytest.mark.slow
def test_three_commands_give_one_table_on_one_set_of_targets(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (said,) = measured(tmp_path, "512,2048,8192")
    reach = "same_targets: reach 8192 tokens, up to which all lengths score the same 1,024 targets in "
    assert said.startswith(reach) and int(said[len(reach) :].split()[0]) >= 16
    rows = rows_of(tmp_path)
    own = [row for row in rows if row["protocol"] == "same_targets"]
    assert len({row["targets_hash"] for row in own}) == 1 and {row["length"] for row in own} == set(LENGTHS)
    assert len(own) == len(content(own)), "nothing is measured twice"
    answer = here("report", cwd=tmp_path)
    assert answer.code == 0, answer.err
    folder = tmp_path / "results" / "default" / "report"
    with (folder / "verdicts.csv").open() as file:
        verdicts = list(csv.DictReader(file))
    assert [int(line["length"]) for line in verdicts] == [256, 512, 1024, 2048, 8192]
    assert {line["targets_hash"] for line in verdicts} == {own[0]["targets_hash"]}
    assert {line["documents"] for line in verdicts} == {str(own[0]["documents"])}
    headline = answer.out.partition("Also measured")[0]
    assert re.search(r"128\*\s+256\s+512\s+1024\s+2048\s+8192", headline), headline
    assert headline.count("same_targets · perplexity") == 1 and "nonoverlapping" not in headline
    assert answer.out.startswith("At 64 times its training length, against that length alone, rope changes by ")
    assert answer.out.count("No verdict from fewer than three seeds.") == 2, "in the answer, and below the table"


@pytest.mark.slow
def test_other_orders_of_lengths_give_equal_rows_and_measure_nothing_twice(trained: Path, tmp_path: Path) -> None:
    found = []
    for name, orders in {"a": ("512,2048,8192",), "b": ("8192,512", "2048"), "c": ("2048", "8192", "512,128")}.items():
        shutil.copytree(trained, tmp_path / name)
        measured(tmp_path / name, *orders)
        rows = rows_of(tmp_path / name)
        found.append(content(rows))
        assert len(rows) == len(found[-1])
        (again,) = measured(tmp_path / name, "8192,2048,512")
        assert "all 8192, 2048, 512 measured already" in again and rows_of(tmp_path / name) == rows
    assert found[0].keys() == found[1].keys() == found[2].keys()
    for place, (hash_, documents, nll) in found[0].items():
        for other in found[1:]:
            assert other[place][:2] == (hash_, documents) and other[place][2] == pytest.approx(nll, abs=1e-5), place


@pytest.mark.slow
def test_a_length_beyond_the_reach_is_said_before_it_is_measured_and_reported_apart(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    words = ["eval.protocols=[same_targets]", "eval.controls=false", "eval.targets=256"]
    answer = here("eval", "--lengths", "512,16384", *words, "wandb.mode=disabled", cwd=tmp_path)
    assert answer.code == 0, answer.err
    before, far = answer.err.splitlines()[:2]
    assert before.startswith("same_targets: reach 8192 tokens")
    assert far.startswith("same_targets: 16384 is beyond the reach of 8192 tokens: measured with the shorter lengths")
    sets: dict[str, set[int]] = {}
    for row in rows_of(tmp_path):
        if row["protocol"] == "same_targets" and row["targets"] == 256:
            sets.setdefault(row["targets_hash"], set()).add(row["length"])
    assert sorted(map(sorted, sets.values())) == [[16, 128, 512], [16, 128, 512, 16384]]
    shown = here("report", cwd=tmp_path).out.partition("Also measured")
    assert "16384" not in shown[0] and "16 to 16,384" in shown[2]
