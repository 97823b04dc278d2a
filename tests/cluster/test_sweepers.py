"""What is swept: lists, ranges, globs, and the choices of an experiment."""

from itertools import product
from pathlib import Path

import pytest
import yaml
from support.command import TINY, here, write_texts

from posexp.cli import tasks
from posexp.config.commands import TrainCommand
from posexp.sweeps import plan

LENGTHS = ["eval.lengths=[16]", "eval.controls=false"]


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


def runs_of(folder: Path, group: str = "default") -> list[Path]:
    """In the order in which they were begun."""
    runs = [path.parent for path in (folder / "results" / group).glob("*/config.yaml")]
    return sorted(runs, key=lambda run: run.joinpath("config.yaml").stat().st_mtime_ns)


def knob(run: Path, section: str, key: str) -> object:
    return yaml.safe_load((run / "config.yaml").read_text())[section][key]


@pytest.mark.slow
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
    refused = here("train", "-m", "+scheme=rope", "train.lr=interval(1e-3,1e-1)", *TINY, cwd=folder).refusal()
    assert "an interval has no list of values: sweep a list" in refused


def test_a_cell_is_what_its_command_alone_composes(folder, monkeypatch):
    """Although the sweep composes cells of like choices once: schemes of one file and of several, and own ones."""
    (folder / "own" / "scheme").mkdir(parents=True)
    for name, base in (("mine", 7.0), ("none", 9.0)):  # the second stands in place of posexp's
        node = f"_target_: posexp.schemes.rope.Rope\nbase: {base}\nfraction: 1.0\nlayout: half\n"
        (folder / "own" / "scheme" / f"{name}.yaml").write_text(node)
    swept: list[TrainCommand] = []
    monkeypatch.setattr(plan, "missing", lambda cells, compose, elsewhere: swept.extend(map(compose, cells)) or [])
    own = ["--config-dir", "own"]
    schemes, windows, rates = ("alibi", "dape", "mine", "none"), ("bca", "full"), ("0.1", "1e-3")
    axes = [f"+scheme={','.join(schemes)}", f"window={','.join(windows)}", f"train.lr={','.join(rates)}"]
    assert here("train", "-m", *own, *TINY, *axes, cwd=folder).code == 0
    alone: list[TrainCommand] = []
    monkeypatch.setattr(tasks, "perform", alone.append)
    for scheme, window, rate in product(schemes, windows, rates):
        words = [f"+scheme={scheme}", f"window={window}", f"train.lr={rate}"]
        assert here("train", *own, *TINY, *words, cwd=folder).code == 0
    assert swept == alone and len(swept) == 16
    assert {each.scheme["base"] for each in swept if "none" in each.label} == {9.0}
    labels = {"alibi", "dape-kerple_log", "mine", "none"}
    assert {each.label for each in swept} == labels | {f"{label}-bca" for label in labels}


@pytest.mark.slow
def test_the_preset_for_learning_rates_is_a_grid(folder):
    small = [word for word in TINY if not word.startswith("wandb")]
    answer = here("train", "-m", "+experiment=lr", "+scheme=rope", "group=rates", *small, cwd=folder)
    assert answer.code == 0, answer.err
    runs = runs_of(folder, "rates")
    assert sorted(knob(run, "train", "lr") for run in runs) == [0.001, 0.003, 0.01, 0.03]
    assert all(knob(run, "eval", "lengths") == [16] for run in runs)
