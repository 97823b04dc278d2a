"""From targets to numbers: losses, their means and intervals, and the rows of a run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import run_of, world, write_texts
from support.counter import CPU, ROPE, Counter, decoder
from support.rows import stored_losses
from support.spans import V, planned, text, token_losses
from torch import nn

from posexp.config.commands import EvalCommand, TrainCommand
from posexp.config.sections import (
    DataConfig,
    Device,
    EvalConfig,
    ModelConfig,
    Precision,
    Source,
    TrainConfig,
    WandbConfig,
    WandbMode,
)
from posexp.data import tokenizer
from posexp.data.load import load_store
from posexp.evaluation.evaluate import evaluate
from posexp.evaluation.rows import parse_sums
from posexp.evaluation.scoring import is_out_of_memory
from posexp.evaluation.statistics import summarize
from posexp.report import COLUMNS
from posexp.runs.run import Run
from posexp.schemes import Scheme
from posexp.training.train import train


def nll(loss, protocol: str, lengths: list[int]) -> list[float]:
    tokens = text(*[520] * 6)
    return [
        token_losses(Counter(loss), tokens.ids, row.windows, 4096, CPU, Precision.float32).mean(dtype=float)
        for row in planned(tokens, protocol, lengths, stride=8)
    ]


USES_ALL = lambda c: 3 - 0.3 * torch.log(c)  # noqa: E731
IGNORES = lambda c: 3 - 0.3 * torch.log(c.clamp(max=24))  # noqa: E731
BREAKS = lambda c: USES_ALL(c) + 1.5 * (c > 32)  # noqa: E731


@pytest.mark.parametrize("loss", [USES_ALL, IGNORES, BREAKS])
def test_each_protocol_gives_a_known_models_numbers(loss):
    lengths, context = [32, 64, 128], torch.arange(1, 129, dtype=torch.float64)
    f = loss(context).numpy()
    same = [f[length - length // 16 : length].mean() for length in lengths]
    assert nll(loss, "same_targets", lengths) == pytest.approx(same, abs=1e-6)
    total = 6 * 520 - 1
    windows = [np.concatenate([f[:length]] * (total // length) + [f[: total % length]]).mean() for length in lengths]
    assert nll(loss, "nonoverlapping", lengths) == pytest.approx(windows, abs=1e-6)
    slid = [
        (f[:n].sum() + f[n - 8 : n].sum() * ((total - n) // 8) + f[n - (total - n) % 8 : n].sum()) / total
        for n in lengths
    ]
    assert nll(loss, "sliding", lengths) == pytest.approx(slid, abs=1e-6)


def test_only_same_targets_shows_that_a_model_ignores_what_is_far():
    near, far = nll(IGNORES, "same_targets", [32, 256])
    assert near == pytest.approx(far, abs=1e-6), "no target has less context than the model uses"
    near, far = nll(IGNORES, "nonoverlapping", [32, 512])
    assert near - far > 0.15, "early tokens weigh less in long windows, which looks like a gain"
    assert np.diff(nll(USES_ALL, "same_targets", [32, 256])) < -0.6
    assert (
        np.diff(nll(BREAKS, "same_targets", [32, 64])) > 1.25 > 0.7 > np.diff(nll(BREAKS, "nonoverlapping", [32, 64]))
    )


def test_uniform_logits_give_log_of_the_vocabulary_at_every_length():
    model, tokens = decoder(ROPE), text(300, 200)
    nn.init.zeros_(model.embedding.weight)
    for protocol in ("same_targets", "nonoverlapping", "sliding", "per_position"):
        for row in planned(tokens, protocol, [16, 64, 128], stride=4):
            losses = token_losses(model, tokens.ids, row.windows, 512, CPU, Precision.float32)
            assert losses == pytest.approx(math.log(V), abs=1e-6)


@pytest.mark.parametrize("protocol", ["same_targets", "nonoverlapping", "sliding"])
def test_losses_are_those_of_one_window_at_a_time_in_float64(protocol):
    tokens, nothing = text(90, 61), {"_target_": "posexp.schemes.none.NoPositions"}
    model, double = decoder(nothing).train(), decoder(nothing).double().eval()
    windows = np.concatenate([row.windows for row in planned(tokens, protocol, [7, 16, 40], stride=5)])
    expected = []
    for start, first, stop in windows.tolist():
        ids = torch.from_numpy(tokens.ids[start:stop])
        with torch.no_grad():
            logits = double.logits(double(ids[None, :-1]))[0].double()
        loss = logits.logsumexp(-1) - logits.gather(1, ids[1:, None])[:, 0]
        expected += loss[first - start - 1 :].tolist()
    for batch_tokens in (1, 50, 300, 10**6):
        losses = token_losses(model, tokens.ids, windows, batch_tokens, CPU, Precision.float32)
        assert losses == pytest.approx(np.array(expected), abs=1e-5)
    assert model.training, "the model is handed back as it came"


def test_perplexity_is_exp_of_the_token_mean_in_float64():
    loss_N = (np.random.default_rng(0).random(300_000) * 5).astype(np.float32)
    document_N = np.repeat([3, 8, 9], [10, 100_000, 199_990])
    summary = summarize(loss_N, document_N, None)
    exact = math.fsum(map(float, loss_N)) / len(loss_N)
    assert abs(summary.nll / exact - 1) < 1e-13 and summary.ppl == math.exp(summary.nll)
    assert summary.bits_per_byte is None


def test_the_interval_covers_the_truth_about_95_times_in_100():
    draw = np.random.default_rng(1)
    hits, trials = 0, 300
    for _ in range(trials):
        document_N = np.repeat(np.arange(20), 10)
        loss_N = 3 + np.repeat(draw.normal(0, 0.3, 20), 10) + draw.normal(0, 0.5, 200)
        found = summarize(loss_N, document_N, None)
        assert found.ci_low is not None and found.ci_high is not None and found.ci_low < found.ppl < found.ci_high
        hits += found.ci_low <= math.exp(3) <= found.ci_high
    assert 0.90 <= hits / trials <= 0.97


def test_one_document_has_no_interval():
    one = summarize(np.ones(10, np.float32), np.full(10, 4), 20.0)
    assert (one.ci_low, one.ci_high) == (None, None)
    assert one.bits_per_byte == pytest.approx(1 / math.log(2) / 2)


class Fails(Scheme):
    """A scheme that does not survive inputs past `last` tokens."""

    def __init__(self, dims, last: int, memory: bool):
        super().__init__(dims)
        self.last, self.memory = last, memory

    def embed(self, x_BTD, pos_BT):
        if pos_BT.shape[1] <= self.last:
            return x_BTD
        if self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return x_BTD * torch.nan


def finished_run(folder: Path, scheme: dict, lengths: list[int], **data) -> Run:
    if not (folder / "text").exists():
        write_texts(folder / "text")
    values = {
        "source": Source.files,
        "paths": str(folder / "text"),
        "tokenizer": "bytes",
        "cache": str(folder / "cache"),
    }
    return train(
        TrainCommand(
            scheme=scheme,
            label=scheme["_target_"].rpartition(".")[2].lower() + str(scheme.get("memory", "")),
            model=ModelConfig(d_model=16, n_layer=1, n_head=1),
            data=DataConfig(**(values | data)),
            train=TrainConfig(length=16, tokens=64, batch_tokens=32),
            eval=EvalConfig(lengths=lengths, targets=300),
            wandb=WandbConfig(mode=WandbMode.disabled),
            results=str(folder / "results"),
            device=Device.cpu,
        )
    )


def rows_of(run: Run) -> list[dict]:
    def refuse(word: str):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in run.rows.read_text().splitlines()]


def requested_rows_of(run: Run) -> list[dict]:
    """Without controls, the level and an eighth of the training length."""
    return [row for row in plain_rows_of(run) if row["protocol"] != "level" and row["length"] > 2]


def plain_rows_of(run: Run) -> list[dict]:
    """Without controls, by length."""
    rows = [row for row in rows_of(run) if not row["control"]]
    return sorted(rows, key=lambda row: (row["protocol"] != "same_targets", row["length"]))


@pytest.mark.slow
def test_a_row_has_every_column_as_strict_json(tmp_path):
    run = finished_run(tmp_path, ROPE, [16, 64])
    rows = requested_rows_of(run)
    assert [(row["protocol"], row["length"]) for row in rows] == [
        (protocol, length) for protocol in ("same_targets", "nonoverlapping") for length in (16, 64)
    ]
    for row in rows:
        assert set(COLUMNS) <= set(row) and row["status"] == "ok" and row["run"] == run.name
        assert row["ppl"] == pytest.approx(math.exp(row["nll"])) and row["ci_low"] < row["ppl"] < row["ci_high"]
        assert row["bits_per_byte"] == pytest.approx(row["nll"] / math.log(2)), "one token is one byte"
        assert 0 <= row["accuracy"] <= 1 and row["exact_match"] is None
        assert row["tokens_per_second"] > 0 and row["peak_memory"] > 10 * 2**20
        assert (row["train_length"], row["seed"], row["window"]) == (16, 0, "full")
    kept = stored_losses(run.folder, rows[1])
    assert kept is not None and len(kept.nll) == rows[1]["targets"]
    assert kept.nll.mean(dtype=float) == pytest.approx(rows[1]["nll"]) and kept.hit.mean() == rows[1]["accuracy"]
    sums = parse_sums(rows[1]["document_sums"])
    assert sums is not None and sums.sums.sum() / sums.counts.sum() == pytest.approx(rows[1]["nll"])
    assert len(sums.sums) == rows[1]["documents"]


@pytest.mark.slow
def test_bits_per_byte_count_the_bytes_of_the_text_behind_the_targets(tmp_path):
    run = finished_run(tmp_path, ROPE, [16], tokenizer="bpe", vocab_size=280)
    row = plain_rows_of(run)[0]
    kept = stored_losses(run.folder, row)
    store = load_store(run.config().data, print)
    ids = store.split(run.config().eval.split).ids
    assert kept is not None
    pieces = [tokenizer.load_tokenizer(store.tokenizer_path).decode([int(ids[target])]) for target in kept.target]
    bytes_ = sum(len(piece.encode()) for piece in pieces)
    assert bytes_ > row["targets"] and row["bits_per_byte"] == pytest.approx(
        row["nll"] * row["targets"] / math.log(2) / bytes_
    )
    assert row["byte_count"] == "exact"


@pytest.mark.slow
def test_a_row_says_that_its_bytes_are_scaled_where_the_tokens_do_not_sum_to_the_text(tmp_path, capsys):
    from tokenizers import normalizers

    halves = tokenizer.single_bytes()
    halves.normalizer = normalizers.Replace("e", "ee")
    halves.save(str(tmp_path / "t.json"))
    run = finished_run(tmp_path, ROPE, [16], tokenizer=str(tmp_path / "t.json"))
    row, tokens = plain_rows_of(run)[0], load_store(run.config().data, print).split(run.config().eval.split)
    a_byte = tokens.bytes / len(tokens.ids)  # each token is one byte of the text that was read, and so less of the file
    assert a_byte < 0.99 and row["bits_per_byte"] == pytest.approx(row["nll"] / math.log(2) / a_byte)
    assert row["byte_count"] == "scaled" and "bits per byte: the tokens do not add up" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 80 bytes."), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("misaligned address in shared memory"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_memory_that_ran_out_is_taken_for_it(error, is_one):
    assert is_out_of_memory(error) == is_one


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "status"), [(False, "non-finite"), (True, "out of memory")])
def test_a_length_that_fails_is_a_row_that_says_so_and_the_rest_goes_on(tmp_path, memory, status):
    run = finished_run(tmp_path, {"_target_": f"{__name__}.Fails", "last": 40, "memory": memory}, [64, 16, 32])
    rows = requested_rows_of(run)
    assert [row["status"] for row in rows] == ["ok", "ok", status] * 2
    before = rows_of(run)
    for row in rows:
        assert (row["ppl"] is None) == (row["nll"] is None) == (row["length"] == 64)
    chosen = {"lengths": [64], "targets": 300}
    evaluate(
        EvalCommand(eval=chosen, results=str(tmp_path / "results"), wandb=WandbConfig(WandbMode.disabled), trust=True)
    )
    again = [row for row in rows_of(run)[len(before) :] if row["protocol"] == "nonoverlapping"]
    assert len(again) == (1 if memory else 0), "what ran out of memory is tried again, the rest is final"


def test_rows_of_all_runs_and_lengths_score_the_same_targets(tmp_path_factory, tmp_path):
    folder = world(tmp_path_factory, tmp_path)
    rows = [row for label in ("rope", "learned") for row in plain_rows_of(Run(run_of(folder, label)))]
    hashes = {
        protocol: {row["targets_hash"] for row in rows if row["protocol"] == protocol}
        for protocol in ("same_targets", "level", "nonoverlapping")
    }
    assert len(rows) == 16 and all(len(found) == 1 for found in hashes.values())
    assert hashes["same_targets"] != hashes["nonoverlapping"]
    assert {row["crossing_share"] for row in rows if row["protocol"] == "same_targets"} == {0.0}


@pytest.mark.slow
def test_the_crossing_share_counts_targets_whose_context_begins_in_another_document(tmp_path):
    folder = tmp_path / "valid"
    folder.mkdir()
    for name, size in (("a", 25), ("b", 35)):
        (folder / f"{name}.txt").write_text("x" * size)
    run = finished_run(tmp_path, ROPE, [20], valid=str(folder), test=str(folder))
    row = next(row for row in rows_of(run) if row["protocol"] == "nonoverlapping")
    # a stretch of 32 in two windows, of inputs from 0 and from 20; targets 25 … 32 lie in b and see the end of a
    assert row["targets"] == 32 and row["crossing_share"] == pytest.approx(8 / 32)
