"""key_tokens: the tokens that one run chooses, scored in others; and why a run must not choose its own."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.spans import listed, text

from posexp.config.sections import EvalConfig
from posexp.data import Tokens
from posexp.errors import Misuse
from posexp.evaluation import losses
from posexp.evaluation.key_tokens import is_key, self_chosen
from posexp.evaluation.losses import Losses
from posexp.evaluation.plan import plan
from posexp.evaluation.rows import Row
from posexp.evaluation.targets import targets_hash, targets_of
from posexp.runs.run import Run
from posexp.storage import jsonl


def test_losses_that_differ_by_noise_seem_to_use_context_where_they_choose_their_own_tokens():
    """Two runs that use nothing beyond the short context: their losses at both lengths differ by noise alone."""
    draw = np.random.default_rng(0)
    true_N = draw.exponential(3.0, size=200_000)
    runs = [[true_N + draw.normal(size=true_N.size) for _ in ("short", "long")] for _ in range(2)]
    gains = np.array([[(short - long)[is_key(*chooser)].mean() for short, long in runs] for chooser in runs])
    assert all((short - long).mean() < 0.01 for short, long in runs), "on all tokens nobody gains"
    assert gains.diagonal().min() > 2.4, "by their own choice both seem to use far text"
    assert abs(gains[0, 1]) < 0.05 and abs(gains[1, 0]) < 0.05, "by the other's choice neither does"


def test_the_rule_is_that_of_longppl():
    short_N, long_N = np.array([4.5, 4.0, 3.9, 1.9, 9.0]), np.array([1.9, 1.9, 2.0, 0.0, 2.0])
    assert is_key(short_N, long_N).tolist() == [True, True, False, False, False], "> 2 lower, and < 2"


TOKENS = text(200, 200)
TARGETS = np.concatenate([np.arange(n + 64, n + 200) for n in (0, 200)])


def chooser(folder: Path, chosen: list[int]) -> Run:
    """A run whose losses fall by 3 nats from 16 to 64 tokens at the chosen targets, and nowhere else."""
    about = {"scheme": "rope", "seed": 0, "train_length": 16, "window": "full", "weights": "abc", "status": "ok"}
    run = Run(folder / "rope-s0")
    run.folder.mkdir()
    for length in (16, 64):
        nll_N = np.where(np.isin(TARGETS, chosen) & (length == 64), 1.0, 4.0).astype(np.float32)
        row = Row(
            run=run.name, length=length, protocol="same_targets", targets_hash=targets_hash(TOKENS, TARGETS), **about
        )
        jsonl.append(run.rows, row.values())
        zero_N = np.zeros(len(TARGETS), dtype=np.int32)
        losses.keep(run.folder, row, Losses(nll_N, TARGETS, zero_N, zero_N, zero_N > 0))
    return run


def rows_of(given: Path, tokens: Tokens = TOKENS, lengths: tuple[int, ...] = (16, 64), **options):
    return plan(tokens, EvalConfig(protocols=["key_tokens"], key_tokens=str(given), **options), list(lengths), 16)


def test_a_run_chooses_writes_its_list_and_the_list_gives_the_same_targets(tmp_path):
    run = chooser(tmp_path, [70, 71, 300])
    long, short = sorted(rows_of(run.folder), key=lambda row: -row.length)
    assert listed(long) == [[(n, 64)] for n in (70, 71, 300)] and listed(short) == [[(n, 16)] for n in (70, 71, 300)]
    hash_ = targets_hash(TOKENS, np.array([70, 71, 300]))
    (path,) = (run.folder / "losses").glob("key_tokens-*")
    assert path.name == f"key_tokens-64-{hash_}.json"
    about = json.loads(path.read_text())
    assert (about["chooser"], about["targets"], about["among"]) == ("rope-s0", [70, 71, 300], 272)
    for row in rows_of(path):
        assert targets_hash(TOKENS, targets_of(row.windows)[0]) == hash_
        assert (row.chosen_by("abc"), row.chosen_by("other")) == ("itself", "rope-s0")
    assert "choose by another run" in self_chosen(rows_of(path), "rope-s0", "abc")[0]
    assert self_chosen(rows_of(path), "alibi-s0", "other") == []


def test_what_cannot_be_a_choice_on_this_text_is_refused(tmp_path):
    run = chooser(tmp_path, [70])
    rows_of(run.folder)
    (path,) = (run.folder / "losses").glob("key_tokens-*")
    other = text(200, 200)
    other.ids[70] += 1
    for given in (run.folder, path):
        with pytest.raises(Misuse, match="another text or another split"):
            rows_of(given, other)
    with pytest.raises(Misuse, match="at its training length and at 32 tokens: measure them by posexp eval --runs"):
        rows_of(run.folder, lengths=(16, 32))
    with pytest.raises(Misuse, match=r"no loss falls by more than eval\.key_gain=5 nats"):
        rows_of(run.folder, key_gain=5.0)
    with pytest.raises(Misuse, match="longest possible here is 70"):
        rows_of(path, lengths=(16, 128))
    with pytest.raises(Misuse, match="key_tokens needs the choice of another run"):
        plan(TOKENS, EvalConfig(protocols=["key_tokens"]), [16])
    about = json.loads(path.read_text())
    for bad in ({"targets": [71]}, {"targets": [-1]}, {"targets": "70"}, {"weights": 3}, {"targets": []}):
        path.write_text(json.dumps(about | bad))
        with pytest.raises(Misuse, match=r"was altered|cannot be read"):
            rows_of(path)
    path.write_text("{}")
    with pytest.raises(Misuse, match="lacks 'targets'"):
        rows_of(path)


def test_a_curve_of_tokens_that_a_run_chose_itself_is_named_so():
    row = Row(run="a", seed=0, train_length=8, length=8, protocol="key_tokens", window="full", targets_hash="x")
    assert Row.of(row.values() | {"chosen_by": "itself"}).variant == " · chosen by itself"
    assert Row.of(row.values() | {"chosen_by": "rope-s0"}).variant == ""
