"""What wandb gets, read back from the file of a real offline run."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import here
from support.rows import row_of
from support.wandb_files import WandbRun, only_run

from posexp.config.sections import EvalConfig, LoggerName, WandbConfig
from posexp.evaluation.logged import logged_rows
from posexp.evaluation.rows import Row
from posexp.output.console import progress, say, silence
from posexp.runs.logger import Logged
from posexp.runs.loggers import Loggers


def copied(folder: Path, rows: list[Row], label: str = "rope") -> tuple[WandbRun, list[dict[str, Any]]]:
    """(the run as wandb knows it, what was logged) of one offline run."""
    folder.mkdir(parents=True)
    about = Logged(folder, folder.name, "eval", "books", label, {"seed": 1})
    with Loggers([LoggerName.wandb], WandbConfig(), lambda: about) as loggers:
        loggers.evaluation(logged_rows(rows, EvalConfig(targets=500)))
    found = only_run(folder)
    logged = [{key: value for key, value in one.items() if key.startswith("eval/")} for one in found.history]
    return found, [one for one in logged if one]


def row(length: int, **other: Any) -> Row:
    made: dict[str, Any] = {"targets_hash": "1a2b3c4d5e6f", "split": "valid", "length": length}
    made |= {"trained_window": "full", "transform": ""}
    numbers = {"ppl": 20.0, "nll": 3.0, "bits_per_byte": 1.5, "accuracy": 0.25, "exact_match": None}
    return row_of(**made | numbers | other)


def test_the_seeds_of_a_scheme_are_one_group_and_posexps_group_is_a_tag(tmp_path: Path) -> None:
    found, _ = copied(tmp_path / "books" / "rope-s1-aa", [row(128)])
    about = found.about
    assert (about.run_group, list(about.tags), about.display_name) == ("rope", ["books"], "rope-s1-aa")
    assert found.config["group"] == "books" and found.config["label"] == "rope" and found.config["seed"] == 1


def test_every_number_of_a_row_is_logged_at_its_length_and_none_is_not(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("ppl", "nll", "bits_per_byte", "accuracy"))
    task = {"protocol": "exact_match", "exact_match": 0.5, **nothing}
    _, logged = copied(tmp_path / "run", [row(256, **nothing), row(512, **task), row(128)])
    assert logged == [
        {
            "eval/length": 128,
            "eval/same_targets 1a2b3c4d/ppl": 20.0,
            "eval/same_targets 1a2b3c4d/nll": 3.0,
            "eval/same_targets 1a2b3c4d/bits_per_byte": 1.5,
            "eval/same_targets 1a2b3c4d/accuracy": 0.25,
        },
        {"eval/length": 512, "eval/exact_match 500 valid targets/exact_match": 0.5},
    ]


def test_windows_transforms_controls_and_other_text_have_names_of_their_own(tmp_path: Path) -> None:
    alone = {"bits_per_byte": None, "accuracy": None, "nll": None}
    rows = [
        row(1, **alone, window="sliding 64", transform="yarn"),
        row(2, **alone, window="sliding 128", control="window", control_of="full"),
        row(3, **alone, window="bca 64", control="shuffled", control_of="bca 64"),
        row(4, **alone, corpus="pg19"),
    ]
    found, logged = copied(tmp_path / "run", rows)
    assert {key for key in found.summary if key.startswith("eval/")} == {
        "eval/same_targets/ppl@1/sliding 64/yarn",
        "eval/same_targets/ppl@4/pg19",
    }, "controls are no result of their own"
    assert [(one.keys() - {"eval/length"}).pop() for one in logged] == [
        "eval/same_targets 1a2b3c4d/sliding 64/yarn/ppl",
        "eval/same_targets 1a2b3c4d/control window/ppl",
        "eval/same_targets 1a2b3c4d/bca 64/control shuffled/ppl",
        "eval/same_targets 1a2b3c4d/pg19/ppl",
    ]


def test_two_sets_of_targets_are_never_one_curve(tmp_path: Path) -> None:
    alone = {"bits_per_byte": None, "accuracy": None, "nll": None}
    sets = [row(128, **alone), row(128, **alone, targets_hash="ffff00001111"), row(256, **alone)]
    moving = [
        row(length, **alone, protocol="last_k", stride=stride, targets_hash=f"{length}{split}", split=split)
        for length, stride, split in ((512, 32, "valid"), (1024, 32, "valid"), (512, 8, "valid"), (512, 32, "test"))
    ]
    _, logged = copied(tmp_path / "run", sets + moving)
    names = [key for one in logged for key in one if key != "eval/length"]
    assert sorted(set(names)) == [
        "eval/last_k 500 test targets, stride 32/ppl",
        "eval/last_k 500 valid targets, stride 32/ppl",
        "eval/last_k 500 valid targets, stride 8/ppl",
        "eval/same_targets 1a2b3c4d/ppl",
        "eval/same_targets ffff0000/ppl",
    ]
    assert (
        names.count("eval/same_targets 1a2b3c4d/ppl")
        == 2
        == names.count("eval/last_k 500 valid targets, stride 32/ppl")
    )


def test_the_summary_has_the_larger_of_two_sets_of_targets(tmp_path: Path) -> None:
    far = row(256, ppl=30.0, targets=100, targets_hash="ffff00001111")
    found = logged_rows([row(256, ppl=20.0, targets=500), far], EvalConfig())
    assert found.summary == {"eval/same_targets/ppl@256": 20.0} and len(found.curves) == 2


def test_of_a_measurement_made_again_and_of_other_weights_only_the_last_is_logged(tmp_path: Path) -> None:
    old, again = row(256, ppl=30.0, weights="old"), row(256, ppl=25.0)
    found = logged_rows([old, row(128), again, row(256)], EvalConfig())
    assert found.summary == {"eval/same_targets/ppl@128": 20.0, "eval/same_targets/ppl@256": 20.0}
    assert [line["length"] for line in found.rows] == [128, 256]


def test_progress_is_a_line_every_ten_seconds_and_a_bar_on_a_terminal(monkeypatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr("posexp.training.log.time.monotonic", lambda: now[0])
    with progress("rope-s0: sliding 512", 4000, "tokens") as bar:
        for _ in range(4):
            now[0] += 6
            bar.advance(1000)
    assert capsys.readouterr().err.splitlines() == [
        "rope-s0: sliding 512: 2,000 of 4,000 tokens, ETA 0:12",
        "rope-s0: sliding 512: 4,000 of 4,000 tokens, ETA 0:00",
    ]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("check [all]", 2, "schemes") as bar:
        bar.advance()
    drawn = capsys.readouterr().err
    assert "check [all]" in drawn and "1 of 2 schemes" in drawn
    with silence(), progress("check", 2, "schemes") as bar:
        now[0] += 60
        bar.advance()
    assert capsys.readouterr().err == ""


def test_the_log_is_the_standard_librarys(caplog):
    """A notebook takes the lines with a handler of its own."""
    log = logging.getLogger("posexp")
    log.addHandler(caplog.handler)
    try:
        say("100 % of rope: done")
        with silence():
            say("nobody reads this")
        log.debug("a detail")
    finally:
        log.removeHandler(caplog.handler)
    assert caplog.messages == ["100 % of rope: done"]


@pytest.mark.slow
def test_verbose_shows_details_for_one_command(tmp_path):
    (tmp_path / "text.txt").write_text("so it goes and goes again, " * 200)
    words = ["train", "+scheme=none", "model.d_model=16", "model.n_layer=1", "model.n_head=2", "train.length=16"]
    words += ["train.batch_tokens=64", "train.tokens=640", "data=files", "data.paths=text.txt", "data.tokenizer=bytes"]
    words += ["data.cache=cache", "eval.lengths=[16]", "eval.targets=16", "wandb.mode=disabled"]
    first, second = here(*words, "-v", cwd=tmp_path), here(*words, cwd=tmp_path)
    assert first.code == second.code == 0, first.err + second.err
    assert "attention=auto" in first.err and "attention=auto" not in second.err
