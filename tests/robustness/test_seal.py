"""A run's small files: a hand may edit them, and a damaged line is named. No weights but finite ones are saved."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from posexp.errors import RunFailed
from posexp.runs import checkpoint
from posexp.runs.run import Run, read_object
from posexp.storage import jsonl

ROW = {"length": 128, "loss": 4.625, "scheme": "rope", "verdict": None, "ok": True}


def test_a_row_is_the_line_that_a_hand_may_edit(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, ROW)
    assert json.loads(path.read_text()) == ROW
    path.write_text(path.read_text().replace("rope", "alibi"))
    assert jsonl.read_lines(path, pytest.fail) == [ROW | {"scheme": "alibi"}]


def test_files_with_checksums_of_older_versions_are_read_edited_or_not(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    for loss in (4.625, 5.0):
        path.write_text(json.dumps({**ROW, "loss": loss, "crc32": "0fe1e3b6"}))
        assert jsonl.read_lines(path, pytest.fail) == [ROW | {"loss": loss}]
        assert read_object(path, "") == ROW | {"loss": loss}
    (tmp_path / "config.yaml").write_text("train: {length: 16}\ndevice: cpu\n# crc32 of the lines above: 01234567\n")
    assert Run(tmp_path).section("train")["length"] == 16


def test_damaged_lines_are_named_in_one_line_and_the_others_read(tmp_path: Path):
    path, said = tmp_path / "rows.jsonl", []
    good = json.dumps(ROW)
    path.write_text("\n".join([good, good[:-9], "", "[1]", good, '{"length": NaN}', "\0" * 99, good]))
    assert jsonl.read_lines(path, said.append) == [ROW] * 3
    assert said == [f"{path}: line 2, 4, 6, 7 cannot be read (damaged or cut off) and is skipped"]


@pytest.mark.slow
def test_a_long_run_is_read_whole(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' * 300_000)
    assert len(jsonl.read_lines(path, pytest.fail)) == 300_000


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, number: float):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path, 1, model, optimizer)
    with torch.no_grad():
        model.weight[0, 1] = number
    with pytest.raises(RunFailed, match="not finite; earlier checkpoints are kept"):
        checkpoint.save(tmp_path, 2, model, optimizer)
    assert checkpoint.steps(tmp_path) == [1]
    restored = checkpoint.restore(tmp_path, pytest.fail)
    assert restored is not None and restored["step"] == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
