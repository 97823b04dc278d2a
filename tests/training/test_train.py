"""Training: it learns, it is the same run whatever happens to its process, and it says when something is wrong."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.tiny_runs import losses, tiny, weights_digest

from posexp.config.commands import TrainCommand
from posexp.config.digest import digest
from posexp.config.sections import (
    AttentionPath,
    LoggerName,
    ModelConfig,
    TrainConfig,
    WandbConfig,
    WandbMode,
)
from posexp.errors import Misuse, RunFailed, Stopped
from posexp.evaluation.scoring import Scorer
from posexp.model import cpu
from posexp.runs import checkpoint
from posexp.runs.labels import curve_labels
from posexp.runs.logger import logged_run
from posexp.runs.loggers import Loggers
from posexp.runs.run import Run, find_runs
from posexp.storage import jsonl
from posexp.training import optim
from posexp.training.train import train


def command(config: TrainCommand) -> list[str]:
    """The same run from a fresh process."""
    overrides = [
        f"+scheme={config.label}",
        "model.d_model=32 model.n_layer=2 model.n_head=2",
        f"data=files data.paths='{config.data.paths}' data.vocab_size=300 data.cache='{config.data.cache}'",
        f"train.length=16 train.tokens={config.train.tokens} train.batch_tokens=64 train.checkpoint_every=7",
        f"eval.lengths=[16,32] eval.targets=64 wandb.mode=disabled results='{config.results}' device=cpu",
    ]
    return [sys.executable, "-m", "posexp", "train", *" ".join(overrides).replace("'", "").split()]


def test_the_loss_falls_and_the_run_is_evaluated(corpus, tmp_path):
    run = train(tiny(corpus, tmp_path, tokens=64 * 200, lr=1e-2))
    curve = losses(run)
    assert curve[-1][1] < curve[0][1] - 1
    assert run.status()["status"] == "done"
    rows = jsonl.read_lines(run.rows, print)
    assert {(row["protocol"], row["length"]) for row in rows} == {
        *((protocol, length) for protocol in ("same_targets", "nonoverlapping") for length in (16, 32)),
        *(("same_targets", 2), ("level", 16)),
    }


@pytest.mark.slow
def test_evaluation_on_training_text_agrees_with_training(corpus, tmp_path):
    run = train(tiny(corpus, tmp_path, tokens=64 * 300, lr=1e-2))
    check = next(row for row in jsonl.read_lines(run.metrics, print) if "check" in row)
    assert check["agrees"] and check["evaluation_loss"] == pytest.approx(check["training_loss"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 7])
def test_a_short_run_is_not_told_to_be_suspect(corpus, tmp_path, capsys, steps):
    """Both losses are of one text, so that neither noise nor what the last steps learned comes between them."""
    run = train(tiny(corpus, tmp_path, tokens=64 * steps, lr=1e-2))
    (check,) = [row for row in run.history(print) if "check" in row]
    assert check["agrees"] and "distrust" not in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_that_scores_something_else_is_told(corpus, tmp_path, capsys, monkeypatch):
    class Higher(Scorer):
        def __call__(self, ids, windows_W3):
            scores = super().__call__(ids, windows_W3)
            return replace(scores, nll=scores.nll + 0.2)

    monkeypatch.setattr("posexp.training.agreement.Scorer", Higher)
    run = train(tiny(corpus, tmp_path, tokens=64 * 20))
    (check,) = [row for row in run.history(print) if "check" in row]
    assert not check["agrees"] and "distrust this run" in capsys.readouterr().err


def test_dropout_is_not_compared(corpus, tmp_path):
    config = tiny(corpus, tmp_path, tokens=64 * 5)
    config.model.dropout = 0.5
    assert not [row for row in train(config).history(print) if "check" in row]


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(corpus, tmp_path):
    whole = train(tiny(corpus, tmp_path / "a", tokens=64 * 400))
    config = tiny(corpus, tmp_path / "b", tokens=64 * 400)
    run = Run.of(config)
    for signum in (signal.SIGTERM, signal.SIGINT):  # at whatever step it arrives
        process = subprocess.Popen(command(config), stderr=subprocess.PIPE, cwd=tmp_path)
        wait_for_row(run, process)
        process.send_signal(signum)
        text = process.communicate()[1].decode()
        if process.returncode == 0:
            break  # it was faster than the signal
        assert process.returncode == 128 + signum, text
        assert "the same command goes on" in text
        assert "Traceback" not in text
        assert run.status()["status"] == "stopped"
    train(config)
    assert weights_digest(run) == weights_digest(whole)
    assert losses(run)[-1] == losses(whole)[-1]
    steps = [step for step, _ in losses(run)]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(corpus, tmp_path):
    whole = train(tiny(corpus, tmp_path / "a", tokens=64 * 300))
    config = tiny(corpus, tmp_path / "b", tokens=64 * 300)
    run = Run.of(config)
    process = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, cwd=tmp_path)
    wait_for_row(run, process)
    time.sleep(random.random() / 5)
    process.kill()
    process.wait()
    assert run.status()["status"] == "interrupted"
    train(config)
    assert weights_digest(run) == weights_digest(whole)
    assert losses(run) == losses(whole)


def wait_for_row(run: Run, process: subprocess.Popen) -> None:
    """Until the process has written a training row of its own."""
    before = run.metrics.read_text().count("running") if run.metrics.is_file() else 0
    for _ in range(600):
        text = run.metrics.read_text() if run.metrics.is_file() else ""
        if text.count("running") > before and "loss" in text.rpartition("running")[2]:
            return
        assert process.poll() is None, "it ended before its first training row"
        time.sleep(0.05)
    raise AssertionError("no training row within 30 seconds")


@pytest.mark.slow
def test_accumulation_changes_a_step_by_rounding_alone(corpus, tmp_path):
    one = losses(train(tiny(corpus, tmp_path, tokens=640)))
    four = losses(train(tiny(corpus, tmp_path, tokens=640, accumulate=4)))
    assert one[0][1] == pytest.approx(four[0][1], rel=1e-5)


def test_all_schemes_see_the_same_batches_from_the_same_weights(corpus, tmp_path):
    """At step 0 only positions differ: without any, both models would have one and the same loss."""
    from posexp.data.load import load_store
    from posexp.data.sampler import SequenceSampler
    from posexp.model.decoder import build_decoder

    config = tiny(corpus, tmp_path)
    store = load_store(config.data, print)
    from posexp.config.sections import Split

    batches = [SequenceSampler(store.split(Split.train), 16, False).batch(0, 5, 4) for _ in range(2)]
    assert torch.equal(batches[0][0], batches[1][0])
    models = [build_decoder(config.model, 300, tiny(corpus, tmp_path, s).scheme, 16, 0) for s in ("rope", "learned")]
    for (name, a), (_, b) in zip(models[0].blocks.named_parameters(), models[1].blocks.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_repeating_a_finished_run_trains_nothing_again(corpus, tmp_path, capsys):
    config = tiny(corpus, tmp_path)
    run = train(config)
    before = {path: path.stat().st_mtime_ns for path in (run.folder / "checkpoint").iterdir()}
    rows = run.rows.read_bytes()
    train(config)
    assert {path: path.stat().st_mtime_ns for path in (run.folder / "checkpoint").iterdir()} == before
    assert run.rows.read_bytes() == rows
    assert "already trained" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_killed_just_before_it_said_done_is_done_when_repeated(corpus, tmp_path):
    config = tiny(corpus, tmp_path)
    run = train(config)
    jsonl.rewrite(run.metrics, [row for row in jsonl.read_lines(run.metrics, print) if row.get("status") != "done"])
    assert run.status()["status"] == "interrupted"
    train(config)
    assert run.status()["status"] == "done"


def test_another_configuration_is_another_folder_and_a_seed_keeps_the_digest(corpus, tmp_path):
    config = tiny(corpus, tmp_path)
    other_seed = tiny(corpus, tmp_path)
    other_seed.seed = 1
    assert digest(config) == digest(other_seed)
    assert Run.of(config) != Run.of(other_seed)
    assert digest(config) != digest(tiny(corpus, tmp_path, lr=1e-4))
    elsewhere = tiny(corpus, tmp_path)
    elsewhere.data.cache, elsewhere.results, elsewhere.group = "x", "y", "z"
    assert digest(config) == digest(elsewhere)


def test_curves_of_one_label_are_told_apart_by_what_differs(corpus, tmp_path):
    for base in (100.0, 500.0):
        config = tiny(corpus, tmp_path)
        config.scheme["base"] = base
        Run.of(config).create(config)
    runs = find_runs(str(tmp_path / "results"), "default")
    assert sorted(curve_labels(runs, print).values()) == ["rope (base=100.0)", "rope (base=500.0)"]
    config = tiny(corpus, tmp_path, lr=0.5)
    config.scheme["base"] = 500.0
    Run.of(config).create(config)
    runs = find_runs(str(tmp_path / "results"), "default")  # two of three have base=500, and another two the usual rate
    assert sorted(curve_labels(runs, print).values()) == ["rope", "rope (base=100.0)", "rope (train.lr=0.5)"]


@pytest.mark.slow
def test_seeds_are_of_one_curve_wherever_their_text_lay(corpus, tmp_path):
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(corpus, moved)
    shutil.copytree(corpus, other)
    (other / "0.txt").write_text("other words " * 300)
    folder = str(tmp_path / "results")

    def labels_with(text: Path, seed: int) -> list[str]:
        config = tiny(text, tmp_path, tokens=64 * 2)
        config.seed = seed
        train(config)
        return sorted(curve_labels(find_runs(folder, "default"), print).values())

    labels_with(corpus, 0)
    assert labels_with(moved, 1) == ["rope", "rope"]
    here, there, third = labels_with(moved, 0)  # that seed is there already: two curves of their own
    assert here == f"rope (data.paths={corpus.name})" and there == third == "rope (data.paths=moved)"
    shutil.rmtree(next(Path(folder, "default").glob("rope-s0-*")))
    assert len(set(labels_with(other, 2))) == 2


@pytest.mark.slow
def test_only_the_last_two_checkpoints_are_kept(corpus, tmp_path):
    run = train(tiny(corpus, tmp_path))
    assert checkpoint.steps(run.folder / "checkpoint") == [60, 56]
    assert len(list((run.folder / "checkpoint").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncate", "flip", "json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(corpus, tmp_path, capsys, damage):
    config = tiny(corpus, tmp_path)
    run = train(config)
    good = weights_digest(run)
    path = run.folder / "checkpoint" / "step-00000060.safetensors"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "flip":
        data = bytearray(path.read_bytes())
        data[-50] ^= 1
        path.write_bytes(data)
    else:
        path.with_suffix(".json").write_text("{")
    train(config)
    assert "step-00000060.safetensors is damaged" in capsys.readouterr().err
    assert weights_digest(run) == good


@pytest.mark.slow
def test_a_step_that_is_saved_after_later_ones_were_damaged_is_kept(corpus, tmp_path):
    """Damaged checkpoints have higher numbers than the step at which a run that began anew is stopped."""
    run = train(tiny(corpus, tmp_path))
    folder = run.folder / "checkpoint"
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (8, 16, 24):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        checkpoint.save(folder, step, model, optimizer)
        assert checkpoint.steps(folder)[0] == step
    assert checkpoint.steps(folder) == [24, 16]
    aside = sorted(path.name for path in folder.glob("damaged-*"))
    assert aside == [f"damaged-step-000000{step}.{kind}" for step in (56, 60) for kind in ("json", "safetensors")]


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_the_last_checkpoint_survives(corpus, tmp_path, monkeypatch):
    """The kernel's limit on file size stands for the full disk: writing past it fails in the same place."""
    config = tiny(corpus, tmp_path)
    run = Run.of(config)
    limited = (
        "import resource, sys; from posexp.cli import main; from posexp.runs import checkpoint\n"
        "save = checkpoint.save\n"
        "def later(folder, step, *rest, **more):\n"
        "    if step >= 14:\n"
        "        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "    save(folder, step, *rest, **more)\n"
        "checkpoint.save = later; sys.exit(main.main())"
    )
    arguments = command(config)[3:]
    done = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "cannot save" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert checkpoint.steps(run.folder / "checkpoint") == [7]
    train(config)
    assert weights_digest(run) == weights_digest(train(tiny(corpus, tmp_path / "whole")))


def test_a_loss_that_is_not_finite_stops_the_run_with_its_reason(corpus, tmp_path):
    config = tiny(corpus, tmp_path, lr=1e9, clip=1e9)
    with pytest.raises(RunFailed, match="no longer finite at step"):
        train(config)
    status = Run.of(config).status()
    assert status["status"] == "failed"
    assert "finite" in status["reason"]


@pytest.mark.slow
def test_without_clipping_a_run_trains_as_with_a_bound_that_is_never_reached(corpus, tmp_path):
    rows = []
    for clip in (0, 1e9):
        config = tiny(corpus, tmp_path, clip=clip, tokens=64 * 12)
        train(config)
        rows.append([row for row in Run.of(config).history(print) if "grad_norm" in row])
    for off, far in zip(*rows, strict=True):
        assert off["loss"] == far["loss"] and off["grad_norm"] == far["grad_norm"] > 0
    assert rows[0][-1]["loss"] < rows[0][0]["loss"]


@pytest.mark.slow
def test_a_second_process_is_told_who_holds_the_run(corpus, tmp_path):
    config = tiny(corpus, tmp_path)
    run = Run.of(config)
    run.create(config)
    with run.lock():
        done = subprocess.run(command(config), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert f"process {os.getpid()}" in done.stderr.splitlines()[-1]


def test_impossible_sizes_are_refused_before_anything_is_written(corpus, tmp_path):
    config = tiny(corpus, tmp_path)
    config.model = ModelConfig(d_model=30, n_layer=1, n_head=2)  # heads of 15: rotary positions need pairs
    with pytest.raises(Misuse, match="odd"):
        train(config)
    assert not Path(config.results).exists()


def test_a_length_that_no_document_reaches_is_refused_before_training(corpus, tmp_path):
    config = tiny(corpus, tmp_path)
    config.eval.lengths = [16, 5000]
    with pytest.raises(Misuse, match="the longest possible here is"):
        train(config)
    assert not Path(config.results).exists()


@pytest.mark.slow
def test_a_run_trained_on_other_text_is_not_continued(corpus, tmp_path):
    config = tiny(corpus, tmp_path)
    train(config)
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in corpus.iterdir():
        (folder / path.name).write_text(path.read_text() + " and more")
    run = Run.of(config)
    (run.folder / "config.yaml").unlink()
    config.data.paths = str(folder)
    run.create(config)
    moved = Run.of(config)
    run.folder.rename(moved.folder)
    with pytest.raises(RunFailed, match="has changed"):
        train(config)


def test_the_learning_rate_rises_then_follows_a_cosine():
    config = TrainConfig(tokens=100 * 128, batch_tokens=128, lr=1.0, warmup=0.1)
    rates = [optim.learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(optim.FINAL_LR, abs=1e-3)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_vectors_are_not_decayed(corpus, tmp_path):
    from posexp.model.decoder import build_decoder

    groups = optim.build_optimizer(
        build_decoder(ModelConfig(), 300, {"_target_": "posexp.schemes.alibi.Alibi"}, 16, 0), TrainConfig()
    )
    assert all(weight.ndim >= 2 for weight in groups.param_groups[0]["params"])
    assert groups.param_groups[1]["weight_decay"] == 0


@pytest.mark.slow
def test_checkpoints_hold_no_pickle_and_give_back_every_bit(corpus, tmp_path):
    run = train(tiny(corpus, tmp_path))
    path = run.folder / "checkpoint" / "step-00000060.safetensors"
    tensors = load_file(path)
    assert {name.split(".")[0] for name in tensors} == {"model", "optimizer"}
    saved = checkpoint.restore(run.folder / "checkpoint", print)
    assert saved is not None
    assert all(torch.equal(saved["tensors"][name], tensor) for name, tensor in tensors.items())


@pytest.mark.slow
def test_wandb_offline_keeps_one_id_and_its_failure_never_stops_a_run(corpus, tmp_path, capsys):
    config = tiny(corpus, tmp_path, tokens=640)
    config.wandb.mode = WandbMode.offline
    run = train(config)
    kept = list((run.folder / "wandb").glob("offline-run-*"))
    assert kept
    about = logged_run(run, "train")
    assert all(about.id in path.name for path in kept)
    broken = WandbConfig(mode=WandbMode.online)
    os.environ.pop("WANDB_API_KEY", None)
    with Loggers([LoggerName.wandb], broken, lambda: about) as loggers:
        loggers.train(1, {"x": 1})
    assert "wandb is skipped online; an offline copy is kept" in capsys.readouterr().err


@pytest.mark.slow
def test_provenance_names_code_data_and_the_scheme_really_built(corpus, tmp_path):
    run = train(tiny(corpus, tmp_path))
    about = json.loads((run.folder / "provenance.json").read_text())
    assert about["scheme"] == "Rope(base=10000, rotary_dim=16 of 16)" and about["scheme_notes"] == []
    assert about["parameters"]["total"] == sum(
        np.prod(tensor.shape)
        for name, tensor in load_file(run.folder / "checkpoint" / "step-00000060.safetensors").items()
        if name.startswith("model.")
    )
    assert {"commit", "packages", "device", "store", "train_sha256"} <= about.keys()


def test_stopping_ends_a_sweep_too():
    assert not issubclass(Stopped, Exception)


@pytest.mark.slow
def test_a_forced_path_trains_the_same_and_is_recorded(corpus, tmp_path):
    auto_run = train(tiny(corpus, tmp_path, "alibi"))
    dense_run = train(tiny(corpus, tmp_path, "alibi", attention=AttentionPath.dense))
    assert auto_run.name != dense_run.name
    assert auto_run.provenance()["kernel_path"] == "sdpa distance view"
    assert dense_run.provenance()["kernel_path"] == "dense"
    auto, dense = losses(auto_run), losses(dense_run)
    assert auto[0][1] == pytest.approx(dense[0][1], abs=1e-4)


def test_flex_on_a_cpu_is_refused_before_anything_is_written(corpus, tmp_path):
    with pytest.raises(Misuse, match="cannot train on a CPU"):
        train(tiny(corpus, tmp_path, "alibi", attention=AttentionPath.flex))
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("recorded", "used"), [("onednn", "onednn"), ("mkl", "mkl"), (None, "mkl")])
def test_a_run_goes_on_with_the_matrix_product_it_began_with(corpus, tmp_path, monkeypatch, recorded, used):
    """None: of a run from before it was recorded."""
    config = tiny(corpus, tmp_path)
    run = train(config)
    about = run.provenance()
    assert about.pop("matmul") == cpu.matmul()
    (run.folder / "provenance.json").write_text(json.dumps(about | ({"matmul": recorded} if recorded else {})))
    monkeypatch.setattr(cpu, "LOSSLESS", 1e6)  # whatever this CPU makes of it
    monkeypatch.setattr(cpu, "choose_matmul", cpu.choose_matmul.__wrapped__)
    monkeypatch.setattr(cpu, "vendor", lambda: "AuthenticAMD")  # so that a new run would take oneDNN's
    before = cpu.matmul()
    cpu.set_matmul("mkl" if used == "onednn" else "onednn")
    try:
        train(config)
        assert cpu.matmul() == used
    finally:
        cpu.set_matmul(before)


@pytest.mark.slow
def test_a_model_whose_losses_are_not_finite_is_measured_and_says_so(corpus, tmp_path, capsys):
    run = train(tiny(corpus, tmp_path, lr=1e12, tokens=64, warmup=0.0, weight_decay=0.0))  # one step, too far
    (row,) = [row for row in run.history(print) if "check" in row]
    assert row["evaluation_loss"] is None and not row["agrees"]
    assert "distrust this run" in capsys.readouterr().err
    assert {row["status"] for row in jsonl.read_lines(run.rows, print)} == {"non-finite"}
