"""Probes: exact targets, and what a model that copies makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.command import here, world
from support.spans import V, listed, planned, text
from torch import nn

from posexp.config.sections import DataConfig, EvalConfig, ModelConfig, Precision, Source, Split
from posexp.data import Tokens
from posexp.data.load import load_store
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.evaluation.bigrams import matched
from posexp.evaluation.plan import plan
from posexp.evaluation.probes import RARE, rare, since_last
from posexp.evaluation.protocols import MIN_WINDOWS
from posexp.evaluation.scoring import Scorer
from posexp.evaluation.spans import TooLong
from posexp.evaluation.targets import targets_hash, targets_of
from posexp.model.decoder import Decoder
from posexp.schemes import build_scheme
from posexp.storage import jsonl
from posexp.transforms.offset import Later

MANY = 5000  # entries of a vocabulary in which a short random span hardly repeats a token


def random_text(*sizes: int) -> Tokens:
    starts = np.concatenate(([0], np.cumsum(sizes)))
    return Tokens(np.random.default_rng(1).integers(MANY, size=starts[-1]), starts, 0, "")


class Copier(nn.Module):
    """Expects what followed the earliest of the longest matches with the end of its input; knows nothing else."""

    def forward(self, tokens_BT, last=None):
        rows = tokens_BT.tolist()
        after = [[self.next(row[: t + 1]) for t in range(len(row) - (last or len(row)), len(row))] for row in rows]
        return torch.tensor(after)[..., None]

    def next(self, seen: list[int]) -> int:
        def matching(end: int) -> int:
            return next((n for n in range(end) if seen[end - 1 - n] != seen[-1 - n]), end)

        best = max(range(len(seen)), key=matching)
        return seen[best] if matching(best) else MANY

    def logits(self, hidden):
        is_next = torch.arange(MANY) == hidden
        return torch.where(is_next, 30.0, 0.0) * (hidden < MANY)


def scored(row):
    scores = Scorer(Copier(), 4096, torch.device("cpu"), Precision.float32)(row.tokens.ids, row.windows)
    return scores.nll, scores.hit


def test_induction_on_a_hand_made_case():
    # 100 tokens hold five stretches of 17: as many as the longest length, and the last target.
    tokens = text(60, 40)
    eight, sixteen = planned(tokens, "induction", [8, 16], stride=3)
    for row, length in ((eight, 8), (sixteen, 16)):
        ends = [17, 34, 51, 68, 85]
        assert listed(row) == [[(end - 2, length - 1), (end - 1, length)] for end in ends]
        assert (row.length, row.inputs, row.stride) == (length, length, 3)
        assert row.tokens.starts.tolist() == [0, *ends]
        for index, (start, _, stop) in enumerate(row.windows.tolist()):
            inside, own = row.tokens.ids[start:stop], (tokens.ids[:85]).reshape(5, 17)[index]
            assert len(inside) == length + 1
            assert (inside[:3] == inside[-3:]).all(), "what is scored stands at the beginning too"
            assert (inside[3:-3] == own[-length - 1 :][3:-3]).all(), "between the copies is the split's own text"
    assert (tokens.ids == np.arange(100) % V).all(), "the split is left as it was"


def test_all_lengths_score_the_same_copies_and_the_baseline_does_too():
    tokens = random_text(300, 500)
    rows = [row for name in ("induction", "induction_absent") for row in planned(tokens, name, [16, 32, 64], stride=8)]
    assert len({targets_hash(row.tokens, targets_of(row.windows)[0]) for row in rows}) == 1
    with_first, without = rows[0], rows[3]
    start, _, stop = without.windows[0]
    assert (without.tokens.ids[stop - 8 : stop] == with_first.tokens.ids[stop - 8 : stop]).all()
    assert not np.isin(without.tokens.ids[start : start + 8], without.tokens.ids[stop - 8 : stop]).any()


def test_a_model_that_copies_loses_nothing_on_the_second_copy_and_everything_without_the_first():
    for row in planned(random_text(2000), "induction", [16, 48], stride=8):
        nll_N, hit_N = scored(row)
        assert hit_N.all() and nll_N.max() < 1e-6
    for row in planned(random_text(2000), "induction_absent", [16, 48], stride=8):
        nll_N, hit_N = scored(row)
        assert not hit_N.any() and nll_N.min() > 8


def test_passage_at_on_a_hand_made_case():
    # Documents [0, 20) and [20, 40): passages of 6 tokens, of which 3 are scored, behind text of the other document.
    tokens = Tokens(np.arange(40), np.array([0, 20, 40]), 0, "")
    short, long = planned(tokens, "passage_at", [8, 16], stride=3)
    firsts = [3, 6, 9, 12, 15, 23, 26, 29, 32, 35]
    for row in (short, long):
        read = [row.tokens.ids[start:stop].tolist() for start, _, stop in row.windows]
        for first, ids in zip(firsts, read, strict=True):
            assert ids[-6:] == list(range(first - 3, first + 3)), "the passage"
            begin = (first - 3 + 20) % 40
            assert ids[:-6] == [n % 40 for n in range(begin - (row.length + 1 - 6), begin)], "text half the split away"
        assert {(stop - first, stop - 1 - start) for start, first, stop in row.windows.tolist()} == {(3, row.length)}
        assert row.tokens.starts.tolist() == [0, 5 * 17, 10 * 17], "the passages of one document are one document"
    with pytest.raises(Misuse, match=r"twice eval\.stride=3"):
        planned(tokens, "passage_at", [5, 16], stride=3)
    with pytest.raises(TooLong) as refused:
        planned(tokens, "passage_at", [8, 21], stride=3)
    assert refused.value.possible == 20


def test_an_offset_alone_cannot_show_other_frequencies_and_text_in_front_can():
    """A loader once lost the base of RoPE. A later position alone changes nothing in a relative scheme, whatever its
    frequencies; behind text the two bases differ."""
    dims, config = Dims(32, 2, 2, 64), ModelConfig(d_model=32, n_layer=2, n_head=2)
    short, long = planned(text(9000), "passage_at", [16, 1024], stride=8, targets=128)

    def losses(row, base: float, offset: int = 0) -> np.ndarray:
        model = Decoder(config, V, build_scheme("rope", dims, base=base), seed=0)
        for weight in model.blocks.parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.4, generator=torch.Generator().manual_seed(weight.shape[0]))
        model.scheme = Later(dims, model.scheme, offset)
        return Scorer(model, 8192, torch.device("cpu"), Precision.float32)(row.tokens.ids, row.windows).nll

    for base in (10_000.0, 500_000.0):
        assert np.abs(losses(short, base, 1008) - losses(short, base)).max() < 0.02
    assert np.abs(losses(long, 10_000.0) - losses(long, 500_000.0)).mean() > 0.2


def with_pairs(size: int, **places: list[int]) -> list[int]:
    """Tokens that occur once, and at each of the places of a letter two tokens of its own."""
    ids = [*range(1000, 1000 + size)]
    for letter, firsts in places.items():
        for first in firsts:
            ids[first : first + 2] = 2 * ord(letter), 2 * ord(letter) + 1
    return ids


def test_copyable_and_its_matches_on_a_hand_made_case():
    """Spans of 16 and of 4 tokens. Targets are the tokens from the 17th of a document on, which is their reach."""
    one = with_pairs(36, a=[5, 18, 34], b=[27, 30])  # a: 13 back, then 16; b: 3 back, which 4 tokens show
    two = with_pairs(36, c=[18, 33], e=[22, 26])  # 15 and 4 back
    tokens = Tokens(np.array([*one, *(n + 5000 * (n >= 1000) for n in two)]), np.array([0, 36, 72]), 0, "")
    seen = {}
    for name in ("copyable", "copyable_absent"):
        rows = plan(tokens, EvalConfig(protocols=[name], targets=None), [16], train_length=4)
        assert [(row.length, row.inputs) for row in rows] == [(4, 4), (16, 16)]
        assert len({targets_hash(tokens, targets_of(row.windows)[0], row.by) for row in rows}) == 1
        (found,) = {tuple(targets_of(row.windows)[0][row.chosen].tolist()) for row in rows}
        seen[name] = found
    assert seen["copyable"] == (19, 36 + 27, 36 + 34), "a once, e, and c, whose first token is the first of the span"
    assert seen["copyable_absent"] == (28, 35, 36 + 19), "of equal counts: b and c the first time, and a again"
    common_23 = np.array([[0.0, 0.6, 0.3], [0.0, 0.0, 0.1]])
    assert matched(common_23, np.array([0]), np.array([1, 2])) == [(0, 2)], "the nearest"
    assert matched(common_23, np.array([0]), np.array([1])) == [], "or none that is near"
    with pytest.raises(Misuse, match="copyable has nothing to score: choose a length well beyond"):
        plan(tokens, EvalConfig(protocols=["copyable"]), [2, 4], train_length=4)


def test_a_model_that_copies_gains_on_what_far_text_shows_and_nothing_on_its_matches():
    ids = np.random.default_rng(3).permutation(MANY)[:4800]
    draw = np.random.default_rng(4)
    for first in range(200, 4700, 12):  # some bigrams again, 20 to 190 tokens later
        ids[first : first + 2] = ids[(back := first - draw.integers(20, 190)) : back + 2]
    tokens = replace(Tokens(ids, np.array([0, 4800]), 0, ""), store=None)
    gains = {}
    for name in ("copyable", "copyable_absent"):
        rows = plan(tokens, EvalConfig(protocols=[name], targets=512), [128], train_length=16)
        short, long = (scored(replace(row, tokens=tokens))[0][row.chosen].mean() for row in rows)
        gains[name] = short - long
    assert gains["copyable"] > 8 and gains["copyable_absent"] < 0, "where another token followed, copying harms"


def test_spans_have_the_frequencies_of_the_text():
    ids = np.where(np.random.default_rng(0).random(4000) < 0.9, 7, np.arange(4000) % V)
    (row,) = planned(Tokens(ids, np.array([0, 4000]), 0, ""), "induction", [20], stride=10)
    target_N, _ = targets_of(row.windows)
    assert 0.85 < (row.tokens.ids[target_N] == 7).mean() < 0.95


def test_a_bound_leaves_trials_all_over_the_split():
    (row,) = planned(text(20_000), "induction", [16], stride=4, targets=60)
    assert len(row.windows) == 20
    (row,) = planned(text(20_000), "induction", [16], stride=4, targets=1)
    assert len(row.windows) == MIN_WINDOWS


@pytest.mark.parametrize(("lengths", "stride"), [([16, 30], 9), ([4, 16], None)])
def test_a_span_that_does_not_fit_twice_is_refused(lengths, stride):
    with pytest.raises(Misuse, match=r"every length at least twice eval\.stride"):
        planned(text(300), "induction", lengths, stride=stride)
    with pytest.raises(TooLong) as refused:
        planned(text(100), "induction_absent", [16, 100], stride=4)
    assert refused.value.possible == 99


def test_the_distance_to_the_last_equal_token():
    assert since_last(np.array([5, 3, 5, 5, 9, 3, 5])).tolist() == [0, 0, 2, 1, 0, 4, 3]


def test_repeats_on_a_hand_made_case():
    # 60 common tokens, 0, and 6 rare ones, 1 … 3, a tenth of all: in the document [0, 45) 1, 2 and 1, in the other 3.
    ids = np.zeros(66, dtype=np.int64)
    ids[[2, 10, 12]] = 1, 2, 1  # ten back, in the same input
    ids[[19, 46, 50]] = 2, 3, 3  # 2 stands nine back, but in the input before; 3 stands four back
    tokens = Tokens(ids, np.array([0, 45, 66]), 0, "")
    rows = planned(tokens, "repeats", [8, 16])
    assert all((row.windows == [[0, 1, 17], [16, 17, 33], [45, 46, 62]]).all() for row in rows)
    target_N, _ = targets_of(rows[0].windows)
    assert [(row.length, target_N[row.chosen].tolist()) for row in rows] == [(4, [50]), (11, [12])]


def test_repeats_without_anything_to_score_or_room_is_refused():
    with pytest.raises(Misuse, match="no rare token occurs twice"):
        planned(text(40), "repeats", [16])
    with pytest.raises(TooLong) as refused:
        planned(text(40), "repeats", [8, 40])
    assert refused.value.possible == 39


def test_rare_tokens_are_those_of_the_training_split(tmp_path):
    (tmp_path / "train.txt").write_text("a" * 80 + "b" * 12 + "c" * 7 + "d")
    (tmp_path / "valid.txt").write_text("c" * 80 + "aab")
    config = DataConfig(
        source=Source.files,
        paths=str(tmp_path / "train.txt"),
        valid=str(tmp_path / "valid.txt"),
        tokenizer="bytes",
        cache=str(tmp_path / "cache"),
    )
    is_rare_V = rare(load_store(config, lambda line: None).split(Split.valid))
    assert [bool(is_rare_V[ord(char)]) for char in "abcde"] == [False, False, True, True, True]
    assert RARE == 0.1


def test_a_run_gets_rows_of_every_probe(tmp_path_factory, tmp_path):
    folder = world(tmp_path_factory, tmp_path)
    words = ["eval.protocols=[induction,induction_absent,repeats]", "eval.stride=4", "eval.targets=64"]
    words.append("wandb.mode=disabled")
    answer = here("eval", "--lengths", "16,64", *words, cwd=folder)
    assert answer.code == 0, answer.err
    for path in (folder / "results" / "default").glob("*/rows.jsonl"):
        rows = [
            row
            for row in jsonl.read_lines(path, pytest.fail)
            if row["protocol"] not in ("same_targets", "nonoverlapping")
        ]
        found = {name: [row for row in rows if row["protocol"] == name] for name in ("induction", "repeats")}
        assert sorted(row["length"] for row in found["induction"]) == [16, 64]
        assert len({row["targets_hash"] for row in found["induction"]}) == 1
        assert len(found["repeats"]) > 3
        past = "undefined" if "learned" in path.parent.name else "ok"
        assert {row["length"]: row["status"] for row in found["induction"]} == {16: "ok", 64: past}
    again = here("eval", "--lengths", "16,64", *words, cwd=folder)
    assert "measured already" in again.err + again.out
    assert here("report", cwd=folder).code == 0
