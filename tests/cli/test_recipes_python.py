"""The Python blocks of docs/recipes/python.md run, one after the other, in an empty folder."""

import re
from pathlib import Path

import pytest

import posexp
from posexp.evaluation.rows import NAMES
from posexp.report.frame import COLUMNS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "recipes" / "python.md").read_text()


def test_every_function_and_every_named_column_is_there():
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.S))
    assert {name for name in posexp.__all__ if f"posexp.{name}(" in blocks} == {*posexp.__all__} - {"__version__"}
    named = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", TEXT, re.M)))
    assert {*named} == set(COLUMNS) - set(NAMES)


@pytest.mark.slow
def test_the_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # of ~/.cache/posexp
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(block, names)
    assert (tmp_path / "curve.png").stat().st_size > 20_000
    assert set(names["plain"].curve) == {"rope", "alibi"} and set(names["plain"].length) >= {64, 256, 512}
    assert len(names["both"]) == len(names["short"]) == len(names["shuffled"]) > 500
    assert names["logits_BTV"].shape[2] == 2048 and "too few seeds" in capsys.readouterr().out
