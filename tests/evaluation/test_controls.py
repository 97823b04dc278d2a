"""Controls beside a trained run, rows whose losses are gone, and other text than the run's own, as commands do it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import here, run_of, world
from support.rows import stored_losses

from posexp.config.sections import DataConfig, Source, Split
from posexp.data.load import load_store
from posexp.evaluation.rows import parse_sums
from posexp.runs.experiment import Experiment
from posexp.runs.run import Run

MEASURE = ("--lengths", "8,64", "eval.protocols=[same_targets]", "wandb.mode=disabled", "cache=cache")


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return world(tmp_path_factory, tmp_path)


def rows_of(folder: Path, label: str = "rope") -> list[dict]:
    return [json.loads(line) for line in (run_of(folder, label) / "rows.jsonl").read_text().splitlines()]


def the(rows: list[dict], **columns) -> dict:
    (row,) = (row for row in rows if all(row[key] == value for key, value in columns.items()))
    return row


def test_the_window_control_is_what_a_window_of_the_training_length_gives(finished: Path) -> None:
    assert here("eval", *MEASURE, "--runs", "rope*", "window=sliding", cwd=finished).code == 0
    rows = [row for row in rows_of(finished) if row["protocol"] == "same_targets" and row["length"] == 64]
    asked, control = the(rows, window="sliding 16", control=""), the(rows, control="window")
    assert control["nll"] == pytest.approx(asked["nll"], abs=1e-7) and control["window"] == "sliding 16"
    assert control["control_of"] == "full" and control["targets_hash"] == asked["targets_hash"]
    assert control["nll"] != the(rows, window="full", control="")["nll"]
    assert not [row for row in rows if row.get("control_of") == "sliding 16" and row["control"] == "window"]


def test_the_shuffled_control_reads_far_text_in_another_order(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    rows = [row for row in rows_of(finished) if row["protocol"] == "same_targets" and row["length"] == 64]
    run = Run(run_of(finished))
    kept = stored_losses(run.folder, the(rows, control="shuffled"))
    plain = stored_losses(run.folder, the(rows, control=""))
    assert kept is not None and plain is not None and (kept.target == plain.target).all()
    restored = Experiment(run, torch.device("cpu"))
    ids = restored.store.split(Split.valid).ids
    first, stop = int(kept.target[0]), int(kept.target[0]) + 4  # a window of 64 tokens scores four
    start = stop - 1 - 64
    text = ids[start:stop].astype(np.int64)
    text[: 64 - 16] = np.random.default_rng(start).permutation(text[: 64 - 16])
    with torch.no_grad():
        logits = restored.model.logits(restored.model(torch.from_numpy(text[None, :-1])))[0]
    expected = torch.nn.functional.cross_entropy(logits[-4:], torch.from_numpy(text[-4:]), reduction="none")
    assert kept.nll[:4] == pytest.approx(expected.numpy(), abs=1e-5)
    assert abs(kept.nll - plain.nll).max() > 1e-4, "the order of far text does not matter to this model at all"
    assert first == stop - 4


def test_shuffled_inputs_of_several_lengths_that_start_at_one_token_are_read_apart(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is far from the end of a long input is near the end of a shorter one."""
    words = ("eval", *MEASURE[2:], "--lengths", "32,48", "eval.stride=2", "eval.targets=null", "--runs", "rope*")
    assert here(*words, cwd=finished).code == 0
    run = Run(run_of(finished))
    rows = [row for row in rows_of(finished) if row["control"] == "shuffled"]
    short, long = (stored_losses(run.folder, the(rows, length=length)) for length in (32, 48))
    assert short is not None and long is not None
    start_N, long_N = (kept.target - kept.context for kept in (short, long))
    shared = np.flatnonzero(np.isin(start_N, long_N))[::2]  # the first of each block
    assert len(shared) > 50
    monkeypatch.chdir(finished)
    restored = Experiment(run, torch.device("cpu"))
    ids = restored.store.split(Split.valid).ids
    for index in shared[:: len(shared) // 20]:
        start, far = int(start_N[index]), 32 - 16
        text = ids[start : start + 33].astype(np.int64)
        text[:far] = np.random.default_rng(start).permutation(text[:far])
        with torch.no_grad():
            logits = restored.model.logits(restored.model(torch.from_numpy(text[None, :-1])))[0]
        expected = torch.nn.functional.cross_entropy(logits[-2:], torch.from_numpy(text[-2:]), reduction="none")
        assert short.nll[index : index + 2] == pytest.approx(expected.numpy(), abs=1e-5)


def test_controls_can_be_left_out(finished: Path) -> None:
    before = len(rows_of(finished))
    answer = here("eval", *MEASURE, "eval.targets=100", "eval.controls=false", "--runs", "rope*", cwd=finished)
    assert answer.code == 0, answer.err
    assert [row["control"] for row in rows_of(finished)[before:]] == [""] * 4, "16 and 2 tokens cost little"


def test_past_its_end_a_table_has_no_controls_either(finished: Path) -> None:
    rows = [row for row in rows_of(finished, "learned") if row["length"] == 64 and row["protocol"] == "same_targets"]
    assert {(row["control"], row["status"]) for row in rows} == {
        (control, "undefined") for control in ("", "window", "shuffled")
    }


def test_a_row_without_losses_by_document_is_measured_again(finished: Path) -> None:
    """Rows of older versions have none."""
    rows = rows_of(finished)
    old = the(rows, protocol="same_targets", length=64, control="")
    lines = [row | ({"document_sums": None} if row == old else {}) for row in rows]
    (run_of(finished) / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    answer = here("eval", "--lengths", "8,16,64", *MEASURE[2:], "--runs", "rope*", cwd=finished)
    assert answer.code == 0, answer.err
    (again,) = rows_of(finished)[len(rows) :]
    speed = {"tokens_per_second", "peak_memory"}
    assert {key: again[key] for key in again.keys() - speed} == {key: old[key] for key in old.keys() - speed}


def test_losses_by_document_add_up_to_those_of_the_tokens(finished: Path) -> None:
    rows = rows_of(finished)
    for row in rows:
        if row["status"] == "ok":
            sums, kept = parse_sums(row["document_sums"]), stored_losses(run_of(finished), row)
            assert sums is not None and kept is not None
            assert sums.sums.sum() / sums.counts.sum() == pytest.approx(row["nll"], rel=1e-12)
            for document, count, total in zip(*sums, strict=True):
                own_N = kept.nll[kept.document == document].astype(np.float64)
                assert (len(own_N), own_N.sum()) == (count, pytest.approx(total, rel=1e-12))
    assert {row["protocol"] for row in rows} == {"same_targets", "level", "nonoverlapping"}


def test_a_run_is_judged_as_if_trained_at_fewer_tokens(finished: Path) -> None:
    before = len(rows_of(finished))
    words = ("eval", "--lengths", "8,16", *MEASURE[2:], "--runs", "rope*", "eval.judged_from=4")
    assert here(*words, cwd=finished).code == 0
    rows = rows_of(finished)[before:]
    assert {(row["length"], row["control"]) for row in rows} == {
        *((4, ""), (1, "")),
        *((length, control) for length in (8, 16) for control in ("", "window", "shuffled")),
    }
    assert {(row["train_length"], row["judged_from"]) for row in rows} == {(4, 4)}
    assert the(rows, length=16, control="window")["window"] == "sliding 4"
    own = the(rows_of(finished)[:before], length=16, control="", protocol="same_targets")
    assert the(rows, length=16, control="")["nll"] == pytest.approx(own["nll"], abs=1e-6)
    assert "measured already" in (answer := here(*words, cwd=finished)).out + answer.err
    assert "rope · judged from 4" in here("report", cwd=finished).out
    refused = here("eval", *MEASURE, "eval.judged_from=16", "--runs", "rope*", cwd=finished)
    assert refused.code != 0 and "eval.judged_from=16 must be shorter than the training length, 16" in refused.err


@pytest.mark.slow
def test_other_text_is_read_in_the_runs_own_tokens(finished: Path) -> None:
    (finished / "other").mkdir()
    (finished / "other" / "one.txt").write_text("the model counts long lines of text " * 60)
    (finished / "other" / "two.txt").write_text("in one of the lines a model reads and counts " * 60)
    answer = here(
        *("eval", *MEASURE, "--runs", "rope*", "data=files", "data.paths=text", "data.valid=other"), cwd=finished
    )
    assert answer.code == 0, answer.err
    row = the(rows_of(finished), corpus="one.txt two.txt", length=64, control="")
    assert row["documents_in_split"] == 2 and row["status"] == "ok"
    own = load_store(
        DataConfig(source=Source.files, paths=str(finished / "text"), cache=str(finished / "cache"), vocab_size=300)
    )
    there = {path.parent.name for path in (finished / "cache").rglob("tokenizer.json")}
    assert len(there) == 2 and own.key in there, "two stores, one vocabulary"
    contents = {path.read_bytes() for path in (finished / "cache").rglob("tokenizer.json")}
    assert len({json.dumps(json.loads(content)["model"], sort_keys=True) for content in contents}) == 1
    report = here("report", cwd=finished)
    assert "of one.txt two.txt" in report.out
