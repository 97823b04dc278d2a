"""Tracks: documents whose best possible loss is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from posexp.config.sections import DataConfig, Source, Split
from posexp.data import tracks
from posexp.data.load import load_store
from posexp.errors import Misuse
from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.rows import Row, sums_of
from tests.support.command import posexp


def markov(tmp_path, symbols=4, documents=8):
    names = {"source": Source.track, "track": "markov", "tokenizer": "none"}
    return DataConfig(**names, vocab_size=symbols, track_documents=documents, cache=str(tmp_path))


def test_the_optimum_of_markov_equals_counting_by_hand(tmp_path):
    store = load_store(markov(tmp_path), lambda line: None)
    tokens, k = store.split(Split.valid), 4
    size = int(tokens.starts[1])
    # within a document, from its beginning, from one token before the target, and across a boundary
    spans = np.array([[10, 40, 60], [0, 1, 30], [299, 300, 301], [size - 20, size + 5, size + 25]])
    found = iter(tracks.optimum(store.meta["track"], np.asarray(tokens.ids), tokens.starts, spans))
    for start, first, stop in spans.tolist():
        for target in range(first, stop):
            begin = max(start, 0 if target < size else size)
            count = np.ones((k, k))
            for t in range(begin + 1, target):
                count[tokens.ids[t - 1], tokens.ids[t]] += 1
            row = count[tokens.ids[target - 1]]
            assert next(found) == pytest.approx(-math.log(row[tokens.ids[target]] / row.sum()))
    assert next(found, None) is None


def test_no_other_prior_predicts_markov_better_and_more_context_helps():
    random = np.random.Generator(np.random.PCG64(0))
    ids_DT, k = tracks.draw_markov(random, 8, 400, 257), 8
    count_DVV, loss = np.zeros((400, k, k)), {prior: [] for prior in (0.5, 1.0, 2.0)}
    for t in range(1, 257):
        row_DV = count_DVV[np.arange(400), ids_DT[:, t - 1]]
        for prior, losses in loss.items():
            p_D = (row_DV[np.arange(400), ids_DT[:, t]] + prior) / (row_DV.sum(-1) + k * prior)
            losses.append(-np.log(p_D).mean())
        count_DVV[np.arange(400), ids_DT[:, t - 1], ids_DT[:, t]] += 1
    assert np.mean(loss[1.0]) < min(np.mean(loss[0.5]), np.mean(loss[2.0]))
    mean_T = np.array(loss[1.0])
    assert mean_T[:8].mean() > mean_T[56:64].mean() + 0.05 > mean_T[-8:].mean() + 0.1


def test_a_track_is_deterministic_and_its_splits_differ(tmp_path):
    config = markov(tmp_path)
    one, other = (tracks.read_track(config)[Split.train].arrays for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    held_out = tracks.read_track(config)[Split.valid].arrays[0]
    assert not np.array_equal(one[0][:1000], held_out[:1000])
    assert tracks.track_content(config) == [
        "markov",
        4,
        8,
        "f1c7e4dc55322decaed514472c0bec138707e08e233c2d35d7e665682d217b92",
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"track": "mrakov"}, "no track 'mrakov'; there are markov, recall"),
        ({"tokenizer": "bytes"}, "a track has token ids: set data.tokenizer=none"),
        ({"vocab_size": 1}, "data.vocab_size=1 must be at least 2 for markov"),
    ],
)
def test_a_wrong_option_of_a_track_is_named(tmp_path, change, message):
    with pytest.raises(Misuse, match=message):
        load_store(replace(markov(tmp_path), **change), lambda line: None)


def test_rows_of_a_track_have_the_optimum(tmp_path):
    words = [
        "train",
        "data=markov",
        "+scheme=none",
        "train.length=32",
        "train.tokens=4k",
        "model.d_model=16",
        "model.n_layer=1",
    ]
    small = ["data.track_documents=8", "eval.lengths=[32,64]", "eval.targets=512", "wandb.mode=disabled"]
    cache, results = f"data.cache={tmp_path / 'cache'}", f"results={tmp_path}"
    assert posexp(*words, "model.n_head=2", *small, cache, results, cwd=tmp_path).code == 0
    (run,) = (tmp_path / "default").glob("none-*")
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    at = {row["length"]: row for row in rows if row["protocol"] == "same_targets" and not row["control"]}
    assert at[64]["optimum"] < at[32]["optimum"]
    assert at[32]["optimum"] < at[32]["nll"]
    assert all("optimum" not in row for row in rows if row["control"])


def test_the_gain_on_a_track_is_that_of_the_best_predictor():
    draw = np.random.default_rng(0)
    document_N = np.repeat(np.arange(12), 50)
    best = {length: draw.gamma(2, 0.5, 600) + 40 / length for length in (64, 512)}
    known = {"protocol": "same_targets", "window": "full", "targets_hash": "a", "train_length": 64, "status": "ok"}

    def row(seed, length, loss_N):
        means = {"nll": float(loss_N.mean()), "optimum": float(best[length].mean())}
        sums = {"document_sums": sums_of(loss_N, document_N), "optimum_sums": sums_of(best[length], document_N)}
        return Row(run=f"r{seed}", seed=seed, length=length, targets=600, **known, **means, **sums)

    gain = best[64] - best[512]
    rows = [row(seed, 64, best[64] + 0.1) for seed in range(3)]
    rows += [row(seed, 512, best[64] + 0.1 - gain / 2) for seed in range(3)]
    (verdict,) = Pairs(rows, {f"r{seed}": "half" for seed in range(3)}).verdicts()
    assert verdict.word == "uses"
    assert verdict.gain.value == pytest.approx(40 / 64 - 40 / 512, abs=0.1)
    assert verdict.captured.value == pytest.approx(0.5, abs=1e-6)
