"""What wandb, TensorBoard and CSV files get of a run, read back; and the validation loss during training."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.command import TINY, here, write_texts
from support.tiny_runs import losses, tiny, weights_digest
from support.wandb_files import only_run, read_run

from posexp.config.commands import EvalCommand, TrainCommand
from posexp.config.sections import LoggerName, Split, WandbConfig, WandbMode
from posexp.errors import Misuse
from posexp.evaluation.evaluate import evaluate
from posexp.evaluation.rows import read_rows
from posexp.runs import loggers as module
from posexp.runs.logger import Logged
from posexp.runs.loggers import Loggers
from posexp.runs.run import Run
from posexp.training.train import train

EVERY = list(LoggerName)
RANDOMIZED = {"_target_": "posexp.schemes.randomized.Randomized", "factor": 4.0, "at_evaluation": False}


@pytest.fixture(scope="module")
def logged(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainCommand, Run]:
    """A run of 60 steps with every logger."""
    config = tiny(corpus, tmp_path_factory.mktemp("logged"))
    config.loggers, config.wandb = EVERY, WandbConfig(tags=["first", "x" * 80], notes="a try", name="mine")
    return config, train(config)


def valid_losses(run: Run) -> list[tuple[int, float]]:
    return [(row["step"], row["valid_loss"]) for row in run.history(print) if "valid_loss" in row]


@pytest.mark.slow
def test_wandb_has_the_training_the_evaluation_and_where_they_come_from(logged):
    _, run = logged
    found, rows = only_run(run.folder), read_rows(run, print)
    about = found.about
    assert (about.display_name, about.job_type, about.notes, about.run_group) == ("mine", "train", "a try", "rope")
    assert list(about.tags) == ["default", "first", "x" * 64]
    assert found.axes == {"train/*": "train/step", "valid/*": "train/step", "eval/*": "eval/length"}
    for name, expected in (("train/loss", losses(run)), ("valid/loss", valid_losses(run))):
        assert [(line["train/step"], line[name]) for line in found.history if name in line] == expected
    provenance = run.provenance()
    for name in ("commit", "packages", "device", "train_sha256", "tokenizer_sha256"):
        assert found.config["provenance"][name] == provenance[name]
    assert found.config["train"]["length"] == 16 and found.config["scheme"]["base"] == 10000
    plain = [row for row in rows if not row.control]
    own = {f"eval/{row.protocol}/ppl@{row.length}": row.ppl for row in plain}
    assert own.keys() >= {"eval/same_targets/ppl@32", "eval/level/ppl@16", "eval/nonoverlapping/ppl@16"}
    assert {key: value for key, value in found.summary.items() if key.startswith("eval/")} == own
    assert found.summary["train/loss"] == losses(run)[-1][1] and found.summary["valid/loss"] == valid_losses(run)[-1][1]
    (table,) = run.folder.glob("wandb/offline-run-*/files/media/table/*.json")
    content = json.loads(table.read_text())
    ppl = content["columns"].index("ppl")
    assert [line[ppl] for line in content["data"]] == [row.ppl for row in rows]


@pytest.mark.slow
def test_curves_over_length_have_the_same_names_in_another_run_of_the_same_text(logged, corpus):
    config, run = logged
    other = train(replace(config, seed=1, loggers=[LoggerName.wandb]))
    one, two = ({(line["eval/length"], name) for line in curves_of(of) for name in line} for of in (run, other))
    assert one == two and len(one) > 20


def curves_of(run: Run) -> list[dict[str, Any]]:
    return [line for line in only_run(run.folder).history if "eval/length" in line]


@pytest.mark.slow
def test_a_later_evaluation_is_a_run_of_its_own_with_every_row(logged, tmp_path):
    config, trained = logged
    shutil.copytree(config.results, tmp_path / "results")
    run = Run(tmp_path / "results" / config.group / trained.name)
    (of_training,) = run.folder.glob("wandb/offline-run-*")
    how: Any = {"results": str(tmp_path / "results"), "device": config.device, "loggers": EVERY}
    evaluate(EvalCommand(**how, eval={"lengths": [64]}))
    (own,) = set(run.folder.glob("wandb/offline-run-*")) - {of_training}
    found = read_run(own)
    assert (found.about.job_type, found.about.run_group) == ("eval", "rope")
    assert found.about.run_id != read_run(of_training).about.run_id
    assert {"eval/same_targets/ppl@16", "eval/same_targets/ppl@64"} <= found.summary.keys()
    curves = scalars(run.folder / "tensorboard" / "eval").items()
    assert {16, 64} <= {length for name, points in curves if "same_targets" in name for length, _ in points}
    assert scalars(run.folder / "tensorboard" / "train").keys() >= {"train/loss", "valid/loss"}
    with (run.folder / "rows.csv").open(newline="") as file:
        assert {"16", "64"} <= {line["length"] for line in csv.DictReader(file)}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(list(folder.iterdir())) == 1, "an earlier copy is removed"
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}


@pytest.mark.slow
def test_tensorboard_has_losses_by_step_and_curves_by_length(logged):
    _, run = logged
    training = scalars(run.folder / "tensorboard" / "train")
    assert {"train/loss", "train/lr", "train/grad_norm", "valid/loss"} <= training.keys()
    assert training["train/loss"] == [(step, pytest.approx(loss)) for step, loss in losses(run)]
    assert training["valid/loss"] == [(step, pytest.approx(loss)) for step, loss in valid_losses(run)]
    curves = scalars(run.folder / "tensorboard" / "eval")
    (name,) = [
        name for name in curves if name.startswith("eval/same_targets") and "control" not in name and "ppl" in name
    ]
    own = {
        row.length: row.ppl
        for row in read_rows(run, print)
        if row.protocol == "same_targets" and not row.control and row.targets_hash.startswith(name.split()[1][:8])
    }
    assert curves[name] == [(length, pytest.approx(own[length], rel=1e-6)) for length in sorted(own)]


@pytest.mark.slow
def test_csv_files_have_the_rows_of_training_and_of_evaluation(logged):
    _, run = logged
    with (run.folder / "train.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    got = [(int(line["step"]), float(line["train/loss"])) for line in lines if line["train/loss"]]
    assert got == losses(run)
    assert [(int(line["step"]), float(line["valid/loss"])) for line in lines if line["valid/loss"]] == valid_losses(run)
    with (run.folder / "rows.csv").open(newline="") as file:
        ppls = [float(line["ppl"]) for line in csv.DictReader(file)]
    assert ppls == [row.ppl for row in read_rows(run, print)]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.1}, {"scheme": RANDOMIZED}])
def test_validation_changes_neither_losses_nor_weights_nor_the_name(corpus, tmp_path, changes):
    runs = []
    for every in (0, 7):
        config = tiny(corpus, tmp_path / str(every), validate_every=every)
        config.model.dropout = changes.get("dropout", 0.0)
        if "scheme" in changes:
            config.scheme = changes["scheme"] | {"inner": config.scheme}
        runs.append(train(config))
    without, with_it = runs
    assert not valid_losses(without) and [step for step, _ in valid_losses(with_it)] == [*range(7, 60, 7), 60]
    assert losses(with_it) == losses(without) and weights_digest(with_it) == weights_digest(without)
    assert with_it.name == without.name


@pytest.mark.slow
def test_the_validation_loss_is_that_of_the_model_on_the_validation_split(corpus, tmp_path):
    """The last one, from the final checkpoint, computed here token by token."""
    import torch

    from posexp.data.sampler import SequenceSampler
    from posexp.runs.experiment import Experiment

    config = tiny(corpus, tmp_path)
    run = train(config)
    opened = Experiment(run, torch.device("cpu"))
    sampler = SequenceSampler(opened.store.split(Split.valid), 16, False)
    x_BT, y_BT = sampler.batch(0, 0, config.train.tokens // 128 // 16)
    with torch.no_grad():
        logits = opened.model.logits(opened.model(x_BT))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y_BT.flatten())
    assert valid_losses(run)[-1] == (60, pytest.approx(loss.item(), rel=1e-6))
    log = (run.folder / "train.log").read_text()
    assert log.count("validation loss") == 10 and f"step 60/60  validation loss {loss.item():.4f}" in log


@pytest.mark.slow
def test_a_resumed_run_has_the_copies_of_an_uninterrupted_one(corpus, tmp_path):
    config = tiny(corpus, tmp_path, checkpoint_every=20)
    config.loggers = EVERY
    run = train(config)
    whole = [line.split(",")[:3] + line.split(",")[6:] for line in (run.folder / "train.csv").read_text().splitlines()]
    for path in (run.folder / "checkpoint").glob("step-00000060*"):  # as if it had been killed after step 53
        path.unlink()
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(line for line in lines if json.loads(line)["step"] <= 53))
    config.wandb.mode = WandbMode.offline
    train(config)
    again = [line.split(",")[:3] + line.split(",")[6:] for line in (run.folder / "train.csv").read_text().splitlines()]
    assert again == whole and len(whole) == 1 + 6 + 10
    assert [step for step, _ in scalars(run.folder / "tensorboard" / "train")["train/loss"]] == [10, 20, 30, 40, 50, 60]
    found = only_run(run.folder)
    assert [line["train/step"] for line in found.history if "train/loss" in line] == [10, 20, 30, 40, 50, 60]


def test_without_validation_text_a_line_says_so(corpus, tmp_path, capsys):
    config = tiny(corpus, tmp_path, tokens=128)
    config.data.hold_out, config.eval.split = False, Split.train
    run = train(config)
    assert "no validation loss: the corpus has no valid split" in capsys.readouterr().err
    assert not valid_losses(run) and run.status()["status"] == "done"


def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    config = tiny(corpus, tmp_path)
    config.loggers = [LoggerName.tensorboard]
    with pytest.raises(Misuse, match=r"needs TensorBoard: pip install 'posexp\[tensorboard\]'"):
        train(config)
    assert not (tmp_path / "results").exists()


def test_the_error_of_a_logger_is_said_once_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("posexp.runs.logger.said", set())
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    about = Logged(tmp_path, "run", "train", "group", "label", {})
    for _ in range(2):
        with Loggers([LoggerName.tensorboard, LoggerName.csv], WandbConfig(), lambda: about) as loggers:
            loggers.train(10, {"train/loss": 3.0})
            loggers.train(20, {"train/loss": 2.0})
    err = capsys.readouterr().err
    assert err.count("tensorboard is skipped; metrics.jsonl and rows.jsonl have everything (") == 1, err
    with (tmp_path / "train.csv").open(newline="") as file:
        assert [(line["step"], line["train/loss"]) for line in csv.DictReader(file)] == [("10", "3.0"), ("20", "2.0")]


@pytest.mark.slow
def test_where_the_offline_copies_are_is_said_once_at_the_end_of_a_command(tmp_path):
    write_texts(tmp_path / "text")
    words = [word for word in TINY if not word.startswith("wandb")]
    words += ["eval.lengths=[16]", "eval.protocols=[nonoverlapping]", "eval.targets=64", "train.tokens=512"]
    sweep = here("train", "-m", "+scheme=rope", "seed=0,1", *words, cwd=tmp_path)
    assert sweep.code == 0, sweep.err
    lines = sweep.err.splitlines()
    assert (
        [line for line in lines if "wandb" in line]
        == lines[-1:]
        == ["wandb is offline; to upload its 2 copies: wandb sync --yes results/default/*/wandb/offline-run-*"]
    )
    again = here("train", "+scheme=rope", *words, cwd=tmp_path)
    assert again.code == 0 and "wandb" not in again.err, "nothing was trained or measured"
    later = here("eval", "--lengths", "32", "--runs", "rope-s0*", cwd=tmp_path)
    place = later.err.splitlines()[-1].removeprefix("wandb is offline; to upload its copy: wandb sync ")
    assert (tmp_path / place).is_dir() and read_run(tmp_path / place).about.job_type == "eval", later.err


@pytest.mark.slow
def test_a_report_logs_its_pictures_and_the_verdicts_of_each_run(tmp_path):
    write_texts(tmp_path / "text")
    words = [*TINY, "eval.lengths=[16,32,64]", "eval.protocols=[same_targets]", "eval.targets=512"]
    trained = here("train", "-m", "+scheme=rope", "seed=0,1,2", *words, "loggers=[]", cwd=tmp_path)
    assert trained.code == 0, trained.err
    reported = here("report", "loggers=[wandb,tensorboard]", "wandb.project=mine", cwd=tmp_path)
    assert reported.code == 0 and "to upload its 4 copies" in reported.err, reported.err
    with (tmp_path / "results/default/report/verdicts.csv").open(newline="") as file:
        words_of = {line["length"]: line["word"] for line in csv.DictReader(file)}
    assert words_of.keys() == {"32", "64"}
    for folder in (tmp_path / "results/default").glob("rope-*"):
        found = only_run(folder)
        assert found.about.job_type == "eval" and found.about.project == "mine"
        assert {length: found.summary[f"verdict@{length}"] for length in words_of} == words_of
        assert found.summary["usable_length"] in (16, 32, 64)
    report = tmp_path / "results/default/report"
    found = only_run(report)
    assert found.about.job_type == "report" and any(line.get("curves._type") == "image-file" for line in found.history)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(report / "tensorboard" / "report"))
    events.Reload()
    assert events.Tags()["images"] == ["curves"]
