"""The comparison of budgets in a report: what differs is a column, what is equal a sentence."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from support.rows import row_of

from posexp.config.commands import ReportCommand, TrainCommand
from posexp.config.components import options_of
from posexp.config.sections import Optimizer, TrainConfig
from posexp.evaluation.rows import Row
from posexp.report.command import report
from posexp.report.fairness import MEASURED, SEVERAL, TIME, Fairness, fairness_of
from posexp.runs.run import Run
from posexp.storage import jsonl


def made(results: Path, scheme: str, seed: int = 0, speeds=(100, 300, 200), device="cpu", done=True, notes=(), **train):
    """A run folder without weights: configuration, provenance, log and two rows."""
    config = TrainCommand(
        scheme=options_of("scheme", scheme, {}), label=scheme, seed=seed, group="g", results=str(results),
        train=TrainConfig(**train),
    )  # fmt: skip
    run = Run.of(config)
    run.create(config)
    parameters = {"total": 1000, "embedding": 10, "scheme": 16 if scheme == "t5" else 0, "decoder": 990}
    about = {"parameters": parameters, "device": device, "scheme_notes": list(notes)}
    (run.folder / "provenance.json").write_text(json.dumps(about))
    for step, speed in enumerate(speeds):
        run.record(step, loss=3.0, tokens_per_second=speed)
    if done:
        run.record(len(speeds), status="done")
    rows = [row_of(run=run.name, scheme=scheme, seed=seed, length=length, nll=3.0, ppl=20.1) for length in (128, 2048)]
    jsonl.rewrite(run.rows, [row.values() for row in rows])
    return run


def compared(*runs: Run, longest: int = 2048) -> Fairness | None:
    rows: list[Row] = [row_of(run=run.name, length=longest) for run in runs]
    return fairness_of(rows, list(runs), {run.name: run.name.split("-")[0] for run in runs}, pytest.fail)


def columns(fairness: Fairness | None) -> dict[str, list[str]]:
    assert fairness
    return dict(zip(fairness.grid.heads, map(list, zip(*fairness.grid.rows, strict=True)), strict=True))


def test_another_optimizer_is_a_column(tmp_path):
    fairness = compared(made(tmp_path, "rope"), made(tmp_path, "t5", optimizer=Optimizer.muon))
    assert columns(fairness)["optimizer"] == ["adamw", "muon"]


def test_what_differs_is_a_column_and_what_is_equal_a_sentence(tmp_path):
    fairness = compared(made(tmp_path, "rope"), made(tmp_path, "t5", lr=1e-3, scheme_lr=4.0), made(tmp_path, "rope", 1))
    assert columns(fairness) == {
        "curve": ["rope", "t5"],
        "learning rate": ["0.003", "0.001"],
        "the scheme's multiple of it": ["1", "4"],
        "parameters of the scheme": ["0", "16"],
        "seeds": ["2", "1"],
        TIME: ["1.00", "1.00"],
    }
    assert fairness.sentences[0] == (
        "Equal for all curves: training length 128, tokens 1,000,000, tokens per step 1,024, optimizer adamw, "
        "weight decay 0.1, weight decay of the scheme yes, warm-up 0.1, clipping 1, precision auto, "
        "steps 977, parameters 1,000."
    )


def test_seeds_of_one_curve_that_differ_show_both_values(tmp_path):
    fairness = compared(made(tmp_path, "rope"), made(tmp_path, "rope", 1, tokens=2_000_000), made(tmp_path, "alibi"))
    assert columns(fairness)["tokens"] == ["1,000,000", "1,000,000, 2,000,000"]


def test_time_is_relative_to_the_fastest_completed_curve(tmp_path):
    runs = (
        made(tmp_path, "rope", speeds=(10, 400, 400)),  # the first row holds the compiling
        made(tmp_path, "alibi", speeds=(100, 100, 100)),
        made(tmp_path, "alibi", 1, speeds=(200, 200, 200)),
        made(tmp_path, "t5", speeds=(900,), done=False),
    )
    fairness = compared(*runs)
    assert columns(fairness)[TIME] == ["2.00", "1.00", "–"] and MEASURED in fairness.sentences


def test_times_of_several_devices_are_not_compared(tmp_path):
    fairness = compared(made(tmp_path, "rope"), made(tmp_path, "alibi", device="NVIDIA H200"))
    assert TIME not in fairness.grid.heads and SEVERAL in fairness.sentences


def test_notes_name_the_curves_that_have_them(tmp_path):
    note = "ALiBi's steepest slope is 0.25"
    pose = made(tmp_path, "pose")
    runs = made(tmp_path, "alibi", notes=[note]), made(tmp_path, "t5", notes=[note, "x"]), pose
    assert compared(*runs).sentences[-3:] == (
        f"alibi, t5: {note}.",
        "pose: factor=16 is exactly the longest evaluated length, 2048 tokens.",
        "t5: x.",
    )
    assert not any("factor" in sentence for sentence in compared(*runs, longest=1024).sentences)


def test_one_curve_is_not_compared(tmp_path):
    assert compared(made(tmp_path, "rope"), made(tmp_path, "rope", 1)) is None


@pytest.mark.parametrize(
    "damage", ['{"parameters": [1], "scheme_notes": 3, "device": {}}', '{"scheme_notes": [1, {}]}']
)
def test_a_provenance_of_another_shape_gives_what_it_has(tmp_path, damage):
    runs = made(tmp_path, "rope"), made(tmp_path, "alibi")
    (runs[0].folder / "provenance.json").write_text(damage)
    assert compared(*runs).grid.rows[1][0] == "rope"


def test_a_damaged_run_is_named_and_skipped(tmp_path):
    runs = made(tmp_path, "rope"), made(tmp_path, "alibi"), made(tmp_path, "t5")
    (runs[0].folder / "provenance.json").write_text("{")
    said: list[str] = []
    fairness = fairness_of([], list(runs), {run.name: run.name for run in runs}, said.append)
    assert len(fairness.grid.rows) == 2 and "provenance.json" in said[0]


def test_the_report_has_it_in_table_md_and_with_all_in_the_terminal(tmp_path, monkeypatch):
    for scheme in ("rope", "t5"):
        made(tmp_path, scheme)
    texts = []
    for every in (False, True):
        shown = Console(file=io.StringIO(), width=200)
        monkeypatch.setattr("posexp.report.command.console", lambda shown=shown: shown)
        report(ReportCommand(results=str(tmp_path), group="g", all=every))
        texts.append(shown.file.getvalue())
    written = (tmp_path / "g" / "report" / "table.md").read_text()
    assert "## Fairness" in written and "| t5 | 16 |" in written
    assert "Equal for all curves" in texts[1] and "Equal for all curves" not in texts[0]
    report(ReportCommand(rows=str(tmp_path / "g" / "report" / "rows.csv"), results=str(tmp_path), group="rows"))
    assert "Fairness" not in (tmp_path / "rows" / "report" / "table.md").read_text()
