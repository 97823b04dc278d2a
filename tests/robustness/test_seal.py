"""Checksums within a run's small files, and that a checkpoint is only written of numbers that are finite."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from posexp.errors import RunFailed
from posexp.runs import checkpoint
from posexp.storage import checksum, jsonl

ROW = {"length": 128, "loss": 4.625, "scheme": "rope", "verdict": None, "ok": True}
TEXT = "seed: 0\nscheme:\n  name: rope\n"


def test_what_is_sealed_comes_back_without_its_seal():
    assert checksum.read_sealed(json.dumps(checksum.seal(ROW)).encode()) == ROW
    checksum.check_text(checksum.seal_text(TEXT))


def test_what_has_no_seal_is_taken_as_it_is():
    assert checksum.read_sealed(json.dumps(ROW).encode()) == ROW
    checksum.check_text(TEXT)


def test_no_digit_of_a_row_can_change_unseen(tmp_path: Path):
    path, told = tmp_path / "rows.jsonl", []
    jsonl.append(path, ROW)
    line = path.read_bytes()
    end = line.index(checksum.KEY.encode())  # a seal that has lost its name is none, and the row is still right
    changed = [n for n, byte in enumerate(line) if chr(byte).isdigit() and n < end]
    assert len(changed) == 7
    for n in changed:
        other = b"1" if line[n : n + 1] != b"1" else b"2"
        path.write_bytes(line[:n] + other + line[n + 1 :])
        told.clear()
        assert jsonl.read_lines(path, told.append) == []
        assert "line 1 cannot be read" in told[0]
    path.write_bytes(line)
    assert jsonl.read_lines(path, told.append) == [ROW]


def test_a_text_that_was_changed_is_refused():
    sealed = checksum.seal_text(TEXT)
    for changed in (sealed.replace("0", "1", 1), sealed.replace("rope", "none"), "x: 1\n" + sealed):
        with pytest.raises(ValueError, match="changed since it was written"):
            checksum.check_text(changed)


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
