"""The example notebook runs from its first cell to its last in an empty folder."""

import base64
import os
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_curve.ipynb"


def test_the_notebook_is_stored_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell.source for cell in cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)] == []


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_frame_and_the_figure(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("HOME", str(tmp_path))  # of ~/.cache/posexp
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # steady on a busy machine
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(NOTEBOOK.parents[1]), os.getenv("PYTHONPATH")))))
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.source.splitlines()[0]: cell.outputs for cell in book.cells if cell.cell_type == "code"}
    (table,) = shown['frame = posexp.rows("results/first_curve")']
    assert all(word in table.data["text/html"] for word in ("rope", "alibi", "512", "too few seeds"))
    (picture,) = shown["figure = posexp.plot(frame)"]
    png = base64.b64decode(picture.data["image/png"])
    assert png.startswith(b"\x89PNG") and len(png) > 20_000
    (tmp_path / "figure.png").write_bytes(png)
    assert (
        "tokens, "
        in shown['short, long = (posexp.losses(rope, "same_targets", length) for length in (64, 512))'][0].text
    )
    assert "def __init__(self" in shown["import torch"][-1].data["text/plain"]
    assert len([*(tmp_path / "results" / "first_curve").glob("*/rows.jsonl")]) == 2
