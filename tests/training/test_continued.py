"""Continued training, posexp train from=<run>: weights, transform, name, errors, and a child without its parent."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.command import TINY, files_of, here, posexp, run_of, world
from support.tiny_runs import losses

from posexp import api
from posexp.config.commands import TrainCommand
from posexp.errors import RunFailed
from posexp.model.decoder import build_model
from posexp.runs import checkpoint
from posexp.runs.experiment import Experiment
from posexp.runs.run import Run
from posexp.storage import jsonl
from posexp.training import loop
from posexp.training.continued import fitted

SMALL = ["train.tokens=1024", "data.cache=cache", "wandb.mode=disabled", "eval.targets=64", "--lengths", "16,64"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world of two finished runs, rope and learned, at 16 tokens, and a child of rope at 64 with YaRN."""
    folder = world(tmp_path_factory, tmp_path_factory.mktemp("continued"))
    answer = here("train", "from=rope-s0-*", "train.length=64", "+transform=yarn", *SMALL, cwd=folder)
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return tmp_path


def child_of(folder: Path, label: str = "rope-to-64-yarn") -> Path:
    return run_of(folder, label)


def started(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> tuple[TrainCommand, Any, Any]:
    """Train a child for no step: its configuration, its model at step 0 and that of its parent."""
    begun: list[Any] = []

    def stop(training: Any, saved: dict[str, Any]) -> None:
        checkpoint.apply(saved["tensors"], training.model)
        begun.append((training.config, training.model, saved["step"]))
        raise RunFailed("enough")

    monkeypatch.setattr("posexp.training.train.fit", stop)
    answer = here("train", *words, *SMALL, cwd=folder)
    assert answer.refusal(1).endswith("enough")
    ((config, model, step),) = begun
    assert step == 0
    return config, model, Experiment(Run(folder / config.parent.folder), CPU).model


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train.length=64"], ["train.length=64", "+transform=yarn"], ["scheme=none"]])
def test_a_child_begins_with_the_weights_of_its_parent(done: Path, tmp_path, monkeypatch, words):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(child_of(tmp_path))
    _, model, parent = started(tmp_path, "from=rope-s0-*", *words, monkeypatch=monkeypatch)
    found, given = model.state_dict(), parent.state_dict()
    assert found.keys() == given.keys() and all(torch.equal(found[name], given[name]) for name in given)


@pytest.mark.slow
def test_the_transform_acts_in_training_and_at_evaluation(copy: Path, monkeypatch):
    child = child_of(copy)
    shutil.rmtree(child)
    words = ["from=rope-s0-*", "train.length=64", "+transform=yarn"]
    _, model, parent = started(copy, *words, monkeypatch=monkeypatch)
    x_BT = torch.arange(128).view(2, 64) % 200
    with torch.no_grad():
        plain, seen = parent.eval().loss(x_BT, x_BT), model.eval().loss(x_BT, x_BT)
    (rope,) = [part for part in model.scheme.modules() if type(part).__name__ == "Rope"]
    low = rope.frequencies(64, CPU) / rope.trained_frequencies(CPU)
    assert low[-1] == pytest.approx(1 / 4) and rope.magnitude > 1
    assert not torch.equal(plain, seen)
    monkeypatch.undo()
    assert here("train", *words, *SMALL, cwd=copy).code == 0
    again = Experiment(Run(child), CPU).model
    assert torch.equal(again.scheme.frequencies(64, CPU), rope.frequencies(64, CPU))
    (first, *_) = losses(Run(child))
    assert first[0] > 0


def test_the_name_of_a_child_has_its_parents_weights_and_its_transform(done: Path):
    config = Run(child_of(done)).config()
    parent = Run(run_of(done))
    about = checkpoint.read_about(parent.folder / "checkpoint", parent.config().train.steps)
    assert (config.parent.run, config.parent.weights) == (parent.name, about["sha256"][:12])
    assert (config.parent.length, config.parent.tokens) == (16, 2000) and config.group == "default"
    names = {Run.of(config).name}
    for changes in ({"weights": "0" * 12}, {"folder": "elsewhere"}):
        other = Run(child_of(done)).config()
        vars(other.parent).update(changes)
        names.add(Run.of(other).name)
    other = Run(child_of(done)).config()
    other.transform["factor"] = 8.0
    names.add(Run.of(other).name)
    assert len(names) == 3, "the folder alone does not count"


def test_provenance_has_the_chain_and_the_command_as_typed(done: Path):
    about = json.loads((child_of(done) / "provenance.json").read_text())
    assert about["parent"]["run"] == run_of(done).name and about["parent"]["tokens"] == 2000
    assert about["transform"] == "yarn(factor=4, beta_fast=32, beta_slow=1)"
    assert "from=rope-s0-*" in about["command"] and "scheme=" not in about["command"]


def test_what_is_not_typed_is_the_parents(done: Path):
    parent, child = Run(run_of(done)).config(), Run(child_of(done)).config()
    assert (child.model, child.scheme, child.seed) == (parent.model, parent.scheme, parent.seed)
    assert (child.train.batch_tokens, child.train.lr) == (parent.train.batch_tokens, parent.train.lr)
    assert child.data.paths == parent.data.paths and child.train.length == 64


@pytest.mark.slow
def test_a_child_needs_its_parent_no_more(copy: Path):
    child, words = child_of(copy), ["train", "from=rope-s0-*", "train.length=64", "+transform=yarn", *SMALL]
    shutil.rmtree(run_of(copy))
    for command in (["eval", "--lengths", "128", "--runs", "rope-to*", "wandb.mode=disabled"], ["report"]):
        answer = here(*command, cwd=copy)
        assert answer.code == 0, answer.err
    assert here("export", child.name, cwd=copy).code == 0
    assert json.loads((child / "export" / "config.json").read_text())["rope_parameters"]["factor"] == 4
    for step in checkpoint.steps(child / "checkpoint")[:1]:  # as if it had been stopped before its last checkpoint
        for path in (child / "checkpoint").glob(f"step-{step:08d}.*"):
            path.unlink()
    answer = here(*words, cwd=copy)
    assert answer.code == 0 and "training from step" in answer.err, answer.err
    assert "no such run" in here(*words[:2], "train.length=32", *SMALL, cwd=copy).refusal()


@pytest.mark.slow
def test_a_resumed_child_equals_one_that_was_never_stopped(copy: Path, monkeypatch):
    whole, child = losses(Run(child_of(copy))), child_of(copy)
    weights = Experiment(Run(child), CPU).model.state_dict()
    for stop in (1, 3):  # before its own first checkpoint, and after it
        shutil.rmtree(child)
        calls: list[int] = []
        with monkeypatch.context() as patch:
            original = loop.micro_batches

            def stopping(training: Any, step: int, at: int = stop, calls: list[int] = calls, plain=original) -> Any:
                calls.append(step)
                if step == at:
                    raise RunFailed("stopped")
                return plain(training, step)

            patch.setattr(loop, "micro_batches", stopping)
            words = [
                "train",
                "from=rope-s0-*",
                "train.length=64",
                "+transform=yarn",
                *SMALL,
                "train.checkpoint_every=2",
            ]
            assert here(*words, cwd=copy).refusal(1).endswith("stopped")
        assert here(*words, cwd=copy).code == 0
        found = Experiment(Run(child), CPU).model.state_dict()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
        assert losses(Run(child))[-1][0] == whole[-1][0]


@pytest.mark.slow
def test_a_sweep_has_a_child_for_each_parent_length_and_transform(copy: Path):
    parents = f"from={run_of(copy).name},results/default/{run_of(copy).name}"
    words = ["train", "-m", parents, "train.length=32,64", "+transform=pi,yarn", *SMALL]
    answer = here(*words, cwd=copy)
    assert answer.code == 0 and ", 3 to do" in answer.err, answer.err
    labels = {path.name.partition("-s0-")[0] for path in (copy / "results" / "default").glob("rope-to-*-s0-*")}
    assert labels == {f"rope-to-{length}-{name}" for length in (32, 64) for name in ("pi", "yarn")}
    answer = here("report", cwd=copy)
    assert answer.code == 0
    assert all(label in answer.out for label in ("rope", *labels))


@pytest.mark.slow
def test_a_child_of_a_child_stretches_from_the_first_length(copy: Path):
    assert here("train", f"from={child_of(copy).name}", "train.length=128", *SMALL, cwd=copy).code == 0
    grandchild = Run(child_of(copy, "rope-to-64-yarn-to-128"))
    about = grandchild.provenance()
    assert about["transform"].startswith("yarn(factor=8") and about["parent"]["parent"]["run"] == run_of(copy).name


@pytest.mark.slow
def test_two_processes_continue_a_run(copy: Path):
    words = ["from=rope-s0-*", "train.length=32", "+transform=pi", "trainer.devices=2", "device=cpu", *SMALL]
    answer = posexp("train", *words, cwd=copy)
    assert answer.code == 0, answer.err
    assert Run(child_of(copy, "rope-to-32-pi")).status()["status"] == "done"


@pytest.mark.slow
def test_python_continues_a_run(copy: Path, monkeypatch):
    monkeypatch.chdir(copy)
    words = [*SMALL[:2], "eval.targets=64", "eval.lengths=[16,64]"]
    child = api.train(parent=run_of(copy), length=64, tokens=1024, overrides=["+transform=yarn", *words[1:]])
    assert child.name == child_of(copy).name, "the run that the command has trained"


def test_parameters_that_a_scheme_lacks_are_dropped_and_new_ones_drawn(capsys):
    torch.manual_seed(0)
    slopes, other, weight = torch.rand(2), torch.rand(3), torch.rand(4)
    given = {"blocks.0.weight": weight, "scheme.slopes": slopes, "scheme.old": other}
    wanted = {"blocks.0.weight": torch.zeros(4), "scheme.inner.slopes": torch.zeros(2), "scheme.gate": other}
    found = fitted(wanted, given, "parent")
    assert (
        found["scheme.inner.slopes"] is slopes and found["blocks.0.weight"] is weight and found["scheme.gate"] is other
    )
    assert "drawn: scheme.gate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["from=nobody"], "no such run"),
        (["from=r*,x"], "-m"),
        (["from='*'"], "from=* is 3 runs"),
        (["from=rope-s0-*", "model.d_model=64"], "the weights of rope-s0-"),
        (["from=rope-s0-*", "+transform=alibi_scaling"], "has no"),
        (["from=learned-s0-*", "train.length=64"], "scheme.table_PD is [16, 32] in learned-s0-"),
        (["from=rope-s0-*", "+transform=[pi,yarn]"], "to train each, type -m +transform=pi,yarn"),
        (["from=rope-s0-*", "+experiment=demo"], "leave it out"),
        (["from=rope-s0-*", "data.vocab_size=280"], "data.tokenizer=results/default/rope-s0-"),
        (["from=rope-s0-*", "train.length=512"], "train.batch_tokens=256 must be a multiple"),
        (["from=rope-s0-*", "train.longer=512"], "train.longer"),
    ],
)
def test_what_cannot_be_continued_is_one_line_and_changes_nothing(done: Path, words, line):
    before = {name for name in files_of(done / "results")}
    assert line in here("train", *words, *SMALL[1:], cwd=done).refusal()
    assert {name for name in files_of(done / "results")} == before


@pytest.mark.slow
def test_parents_that_are_unfinished_changed_or_hostile_are_refused(copy: Path):
    words, parent = ["train", "from=rope-s0-*", "train.length=64", *SMALL], run_of(copy)
    text = (copy / "text").rename(copy / "aside")
    shutil.copytree(text, copy / "text")
    next((copy / "text").glob("*")).write_text("other words " * 400)
    assert "has changed" in here(*words, cwd=copy).refusal()
    shutil.rmtree(copy / "text")
    text.rename(copy / "text")

    config = parent / "config.yaml"
    honest = yaml.safe_load(config.read_text())
    theirs = honest | {"wandb": honest["wandb"] | {"entity": "theirs"}, "results": "/theirs", "device": "cpu"}
    config.write_text(yaml.safe_dump(theirs | {"device": "cpu"}, sort_keys=False))
    found = api_config(copy, words)
    assert (found.results, found.wandb.entity) == ("results", None), "where results go is not theirs to say"
    (copy / "evil.py").write_text("open('ran', 'w').close()\n")
    config.write_text(
        yaml.safe_dump(honest | {"scheme": {"_target_": "evil.Scheme"}, "device": "cpu"}, sort_keys=False)
    )
    assert "set trust=true to run it" in here(*words, cwd=copy).refusal() and not (copy / "ran").exists()
    assert "evil" not in sys.modules
    config.write_text(yaml.safe_dump(honest, sort_keys=False))

    jsonl.append(Run(parent).metrics, {"step": 4, "status": "stopped"})
    assert "is not finished (stopped)" in here(*words, cwd=copy).refusal()


def api_config(folder: Path, words: list[str]) -> TrainCommand:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = api.composed("train", words[1:])
    assert isinstance(found, TrainCommand)
    return found


def test_old_runs_keep_their_names(done: Path):
    run = Run(run_of(done))
    values = yaml.safe_load((run.folder / "config.yaml").read_text())
    for name in ("parent", "transform", "trust"):
        del values[name]
    assert Run.of(run.config()).name == run.name
    assert build_model(run.config(), 300).scheme.dims.train_length == 16
    assert TINY
