"""Hydra's own sweeper, and Optuna's: which runs they make, and what they are told."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from support.command import TINY, Answer, here, posexp, write_texts

from posexp.sweeps import sweepers

# What optuna 2 uses of SQLAlchemy 1.4 is no more in its second version.
pytestmark = pytest.mark.filterwarnings("ignore:Deprecated API features")
needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="comes with posexp[optuna]")
LENGTHS = ["eval.lengths=[16]", "eval.controls=false"]
STUDY = ["train", "-m", "hydra/sweeper=optuna", "+scheme=rope", *TINY, *LENGTHS]
RATES = "train.lr=tag(log,interval(1e-3,1e-1))"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_texts(folder / "text")
    return folder


@pytest.fixture
def folder(corpus, tmp_path) -> Path:
    """With text, and the token store once a test has built it."""
    (tmp_path / "text").symlink_to(corpus / "text")
    (tmp_path / "cache").symlink_to(corpus / "cache")
    (corpus / "cache").mkdir(exist_ok=True)
    return tmp_path


def study(folder: Path, trials: int, *words: str, rates: str = RATES) -> Answer:
    return here(*STUDY, rates, f"hydra.sweeper.n_trials={trials}", *words, cwd=folder)


def runs_of(folder: Path, group: str = "default") -> list[Path]:
    """In the order in which they were begun."""
    runs = [path.parent for path in (folder / "results" / group).glob("*/config.yaml")]
    return sorted(runs, key=lambda run: run.joinpath("config.yaml").stat().st_mtime_ns)


def knob(run: Path, section: str, key: str) -> object:
    return yaml.safe_load((run / "config.yaml").read_text())[section][key]


def best(folder: Path) -> dict:
    return yaml.safe_load((folder / "results" / "default" / "optimization_results.yaml").read_text())


def loss_of(run: Path) -> float:
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    (nll,) = [row["nll"] for row in rows if (row["protocol"], row["length"]) == ("same_targets", 16)]
    return nll


def test_lists_ranges_globs_and_choices_of_an_experiment_are_swept(folder):
    (folder / "own" / "experiment").mkdir(parents=True)
    (folder / "own" / "experiment" / "both.yaml").write_text(
        '# @package _global_\nhydra:\n  sweeper:\n    params: {+scheme: "choice(rope,none)", seed: "range(1,3)"}\n'
    )
    answer = here("train", "-m", "--config-dir", "own", "+experiment=both", *TINY, *LENGTHS, cwd=folder)
    assert answer.code == 0, answer.err
    answer = here("train", "-m", "+scheme=glob(al*,exclude=alt*)", "seed=range(2)", *TINY, *LENGTHS, cwd=folder)
    assert answer.code == 0, answer.err
    cells = sorted(run.name.rpartition("-")[0] for run in runs_of(folder))
    assert cells == ["alibi-s0", "alibi-s1", "none-s1", "none-s2", "rope-s1", "rope-s2"]
    refused = here("train", "-m", *TINY, "seed=1,2", cwd=folder).refusal()
    assert "choose a scheme with +scheme=<name>" in refused
    refused = here("train", "-m", "+scheme=rope", RATES, *TINY, cwd=folder).refusal()
    assert "only Optuna can sweep an interval: add hydra/sweeper=optuna" in refused


@needs_optuna
def test_a_study_minimises_the_loss_at_the_training_length_and_the_runs_are_its_memory(folder):
    answer = study(folder, 3)
    assert answer.code == 0, answer.err
    first = runs_of(folder)
    losses = [loss_of(run) for run in first]
    rates = [knob(run, "train", "lr") for run in first]
    assert len(set(rates)) == 3 and all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert best(folder)["best_value"] == min(losses)
    assert best(folder)["best_params"] == {"train.lr": rates[losses.index(min(losses))]}
    written = [(run / "metrics.jsonl").read_bytes() for run in first]
    answer = study(folder, 5)
    assert answer.code == 0, answer.err
    assert answer.err.count("training from step 0") == 2
    assert [(run / "metrics.jsonl").read_bytes() for run in first] == written
    assert runs_of(folder)[:3] == first and len(runs_of(folder)) == 5
    whole = best(folder)
    shutil.rmtree(runs_of(folder)[1])  # as if the study had been stopped within it: what follows is the same again
    answer = study(folder, 5)
    assert answer.err.count("training from step 0") == 1
    assert best(folder) == whole


@needs_optuna
def test_a_loss_that_is_not_finite_is_a_result_and_is_not_found_out_twice(folder):
    rates = "train.lr=choice(1e12,3e-2)"
    answer = study(folder, 4, rates=rates)
    assert answer.code == 0, answer.err
    assert "the loss is no longer finite" in answer.err and "the study goes on" in answer.err
    assert best(folder)["best_params"] == {"train.lr": 3e-2}
    again = study(folder, 4, rates=rates)
    assert again.code == 0 and "training from step" not in again.err
    assert "in an earlier trial" in again.err and best(folder)["best_params"] == {"train.lr": 3e-2}


@needs_optuna
def test_what_a_study_cannot_do_is_said_before_anything_is_trained(folder):
    refused = study(folder, 2, "eval.lengths=[8]").refusal()
    assert "keep same_targets in eval.protocols and 16 in eval.lengths" in refused
    refused = study(folder, 2, "+scheme=xpos,t5").refusal()
    assert "the best values differ between schemes: for s in rope alibi; do posexp" in refused
    assert "would select the luckiest seed" in study(folder, 2, "seed=0,1").refusal()
    assert "data.paths: there is no file nowhere" in study(folder, 2, "data.paths=nowhere").refusal()
    assert not runs_of(folder)


@needs_optuna
def test_the_preset_for_learning_rates_works_as_its_first_line_says(folder):
    small = [word for word in TINY if not word.startswith("wandb")]
    words = ["train", "-m", "hydra/sweeper=optuna", "+experiment=lr", "+scheme=rope", "group=lr-rope", *small]
    answer = posexp(*words, "hydra.sweeper.n_trials=1", cwd=folder)
    assert answer.code == 0, answer.err
    (run,) = runs_of(folder, "lr-rope")
    assert 5e-4 <= knob(run, "train", "lr") <= 5e-2 and knob(run, "eval", "lengths") == [16]
    assert "Warning" not in answer.err


def test_without_optuna_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr(sweepers, "find_spec", lambda name: None)
    assert study(folder, 2).refusal().endswith("comes with an extra: pip install 'posexp[optuna]'")
