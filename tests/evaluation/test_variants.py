"""One trained run, evaluated through other windows and with transforms: rows beside those of the run as trained."""

import json
import math
from pathlib import Path

import pytest
from support.command import here, run_of, world
from support.rows import stored_losses

from posexp.config.components import options_of
from posexp.config.sections import config_dir
from posexp.evaluation.variants import label_of

MEASURE = ("--lengths", "8,16,64", "eval.protocols=[same_targets]", "wandb.mode=disabled", "cache=cache")


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return world(tmp_path_factory, tmp_path)


def rows_of(folder: Path, label: str = "rope") -> list[dict]:
    """The rows of the lengths of MEASURE, without that of an eighth of the training length."""
    rows = [json.loads(line) for line in (run_of(folder, label) / "rows.jsonl").read_text().splitlines()]
    return [row for row in rows if row["protocol"] == "same_targets" and not row["control"] and row["length"] > 2]


def nll_of(rows: list[dict], transform: str, window: str = "full") -> list[float]:
    """By length."""
    found = {row["length"]: row["nll"] for row in rows if (row["transform"], row["window"]) == (transform, window)}
    return [found[length] for length in (8, 16, 64)]


def test_each_transform_gives_a_row_set_of_its_own_on_the_same_targets(finished: Path) -> None:
    answer = here(
        "eval", *MEASURE, "--runs", "rope*", "+transform=yarn,rerope", "transform.yarn.factor=8", cwd=finished
    )
    assert answer.code == 0, answer.err
    rows = rows_of(finished)
    assert {row["transform"] for row in rows} == {"", "yarn(factor=8)", "rerope"}
    assert len({row["targets_hash"] for row in rows}) == 1
    plain, yarn, rerope = (nll_of(rows, name) for name in ("", "yarn(factor=8)", "rerope"))
    assert all(abs(a - b) > 1e-5 for a, b in zip(plain, yarn, strict=True)), "yarn changes nothing"
    assert abs(plain[2] - rerope[2]) > 1e-5, "rerope changes nothing beyond its reach"
    assert {row["kernel_path"] for row in rows if row["transform"] == "rerope"} == {"two positions"}
    settings = {row["length"]: row["transform_settings"] for row in rows if row["transform"] == "rerope"}
    assert settings == {length: "rerope(reach=4)" for length in (8, 16, 64)}
    kept = {row["transform"]: stored_losses(run_of(finished), row) for row in rows if row["length"] == 64}
    assert len({found.nll.mean(dtype=float) for found in kept.values()}) == 3
    assert kept["yarn(factor=8)"].nll.mean(dtype=float) == pytest.approx(yarn[2])
    report = here("report", cwd=finished)
    assert "rope · rerope" in report.out and "rope · yarn" in report.out
    again = here("eval", *MEASURE, "--runs", "rope*", "+transform=rerope", cwd=finished)
    assert again.code == 0 and "measured already" in again.err + again.out
    assert len(rows_of(finished)) == len(rows)


def test_a_factor_left_out_is_that_of_each_length(finished: Path) -> None:
    assert here("eval", *MEASURE, "--runs", "rope*", "+transform=pi", cwd=finished).code == 0
    rows = rows_of(finished)
    settings = {row["length"]: row["transform_settings"] for row in rows if row["transform"] == "pi"}
    assert settings == {8: "pi(factor=1)", 16: "pi(factor=1)", 64: "pi(factor=4)"}
    plain, squeezed = nll_of(rows, ""), nll_of(rows, "pi")
    assert plain[:2] == pytest.approx(squeezed[:2], abs=1e-6), "a factor of 1 changes nothing"
    assert plain[2] != squeezed[2]


@pytest.mark.slow
def test_another_window_is_a_row_set_too(finished: Path) -> None:
    for window in ("bca", "sliding", "full"):
        answer = here("eval", *MEASURE, "--runs", "rope*", f"window={window}", cwd=finished)
        assert answer.code == 0, answer.err
    rows = rows_of(finished)
    assert {row["window"] for row in rows} == {"full", "bca 8", "sliding 16"}
    assert {row["trained_window"] for row in rows if "trained_window" in row} == {"full"}
    full, bca, sliding = (nll_of(rows, "", window) for window in ("full", "bca 8", "sliding 16"))
    assert full[:2] == pytest.approx(sliding[:2], abs=1e-6), "up to its size a window hides nothing"
    assert full[2] != sliding[2] != bca[2]
    assert len(rows) == 9, "the full window was measured after training"


@pytest.mark.slow
def test_a_run_trained_in_a_window_is_evaluated_in_it(finished: Path) -> None:
    from support.command import TINY

    answer = here("train", "+scheme=rope", "window=sliding", "window.size=4", *TINY, *MEASURE[:3], cwd=finished)
    assert answer.code == 0, answer.err
    rows = rows_of(finished, "rope-sliding")
    assert {(row["window"], row["trained_window"]) for row in rows} == {("sliding 4", "sliding 4")}
    # one layer, so four tokens are all that it reads
    assert max(row["nll"] for row in rows) - min(row["nll"] for row in rows) < 1e-5
    answer = here("eval", *MEASURE, "--runs", "rope-sliding*", "window=full", cwd=finished)
    assert answer.code == 0 and "window full" in answer.err + answer.out
    assert len(rows_of(finished, "rope-sliding")) == 6


@pytest.mark.slow
def test_what_does_not_apply_is_said_in_one_line_and_the_rest_goes_on(finished: Path) -> None:
    answer = here("eval", *MEASURE, "+transform=yarn,logn", cwd=finished)
    assert answer.code == 0, answer.err
    said = [line for line in (answer.err + answer.out).splitlines() if "does not apply" in line]
    assert len(said) == 1 and "yarn" in said[0] and "learned-s0" in said[0] and "Learned(" in said[0]
    assert {row["transform"] for row in rows_of(finished, "learned")} == {"", "logn"}
    assert {row["transform"] for row in rows_of(finished)} == {"", "yarn", "logn"}
    refusal = here("eval", *MEASURE, "--runs", "learned*", "+transform=yarn", cwd=finished).refusal()
    assert "yarn does not apply" in refusal


def test_a_table_can_be_stretched_past_its_end(finished: Path) -> None:
    assert here("eval", *MEASURE, "--runs", "learned*", "+transform=table_interpolation", cwd=finished).code == 0
    status = {(row["transform"], row["length"]): row["status"] for row in rows_of(finished, "learned")}
    assert (status["", 64], status["table_interpolation", 64]) == ("undefined", "ok")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["+transform=yran"], "yarn"),
        (["+transform=yarn", "transform.yarn.beta=3"], "beta"),
        (["+transform=yarn", "transform.yarn.factor=0.5"], "factor"),
        (["transform.yarn.factor=4"], "transform"),
        (["window=slide"], "sliding"),
        (["window=sliding", "window.size=0"], "window.size"),
        (["+transform="], "transform"),
    ],
)
def test_bad_variants_are_refused_in_one_line(finished: Path, words: list[str], says: str) -> None:
    rows = rows_of(finished)
    assert says in here("eval", *MEASURE, "--runs", "rope*", *words, cwd=finished).refusal()
    assert rows_of(finished) == rows


def test_a_label_tells_what_was_chosen_differently() -> None:
    node = options_of("transform", "yarn", {})
    assert label_of("yarn", node) == "yarn"
    assert label_of("yarn", {**node, "factor": 8.0}) == "yarn(factor=8)"
    assert label_of("mine", {"_target_": "mine.Mine", "k": 2}) == "mine(k=2)"
    assert label_of("yarn", {"_target_": "mine.Yarn", "k": 2}) == "yarn(k=2)"


@pytest.mark.parametrize("kind", ["window", "transform"])
def test_every_window_and_transform_says_what_it_is(kind: str) -> None:
    files = sorted((config_dir() / kind).glob("*.yaml"))
    assert len(files) > 5
    assert all(file.read_text().startswith("# ") for file in files)


def test_perplexities_of_variants_are_those_of_their_losses(finished: Path) -> None:
    assert here("eval", *MEASURE, "--runs", "rope*", "+transform=logn", "window=bca", cwd=finished).code == 0
    rows = [row for row in rows_of(finished) if row["transform"] == "logn"]
    assert {row["window"] for row in rows} == {"bca 8"} and len(rows) == 3
    assert all(row["ppl"] == pytest.approx(math.exp(row["nll"])) for row in rows)


@pytest.mark.slow
def test_a_forced_path_is_measured_though_another_was(finished: Path) -> None:
    assert here("eval", *MEASURE, "--runs", "rope*", cwd=finished).code == 0
    before = rows_of(finished)
    assert {row["kernel_path"] for row in before} == {"sdpa causal"}
    forced = here("eval", *MEASURE, "--runs", "rope*", "eval.attention=dense", cwd=finished)
    assert forced.code == 0, forced.err
    after = rows_of(finished)[len(before) :]
    assert {row["kernel_path"] for row in after} == {"dense"}
    assert nll_of(after, "") == pytest.approx(nll_of(before, ""), abs=1e-5)
    assert {row["targets_hash"] for row in after} <= {row["targets_hash"] for row in before}
    again = here("eval", *MEASURE, "--runs", "rope*", "eval.attention=dense", cwd=finished)
    assert "measured already" in again.err + again.out
    refused = here("eval", *MEASURE, "--runs", "rope*", "eval.attention=flex", "window=lambda", cwd=finished)
    assert "one way to compute attention" in refused.refusal()
