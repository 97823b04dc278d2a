"""Text whose answers were stated before: what is scored, and that a predictor that looks back reaches the optimum."""

import math
import re

import numpy as np
import pytest
import torch
from support.command import here
from torch import nn

from posexp.config.sections import DataConfig, EvalConfig, Source, Split
from posexp.data.entities import DRAWN, SEGMENT, names_of, with_new_names
from posexp.data.load import load_store
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.evaluation.asked import distances
from posexp.evaluation.evaluate import Evaluator
from posexp.evaluation.interfaces import View
from posexp.evaluation.variants import Variant
from posexp.runs.run import Run
from posexp.storage import jsonl
from posexp.windows import Window

CAPITALS = range(ord("A"), ord("Z") + 1)


class Predictor(nn.Module):
    """Is certain of `answer(what it reads)`, or, if that is None, takes all of `alphabet` for equally likely."""

    def __init__(self, answer, alphabet, vocab_size):
        super().__init__()
        self.answer, self.vocab_size = answer, vocab_size
        self.unknown_V = torch.full((vocab_size,), -30.0).index_fill(0, torch.tensor(list(alphabet)), 0.0)

    def forward(self, tokens_BT, last=None):
        first = tokens_BT.shape[1] - (last or tokens_BT.shape[1])
        rows = tokens_BT.tolist()
        found = [[self.answer(row[: t + 1]) for t in range(first, len(row))] for row in rows]
        return torch.tensor([[-1 if one is None else one for one in row] for row in found])[..., None]

    def logits(self, hidden_N1):
        sure = torch.where(torch.arange(self.vocab_size) == hidden_N1, 30.0, 0.0)
        return torch.where(hidden_N1 < 0, self.unknown_V, sure)


class Reading:
    """A Subject that is no run."""

    def __init__(self, tmp_path, store, train_length: int, answer, alphabet):
        self.run, self.store, self.train_length = Run(tmp_path), store, train_length
        self.tokens = store.split(Split.valid)
        self.model = Predictor(answer, alphabet, store.vocab_size)
        names = ("run", "scheme", "trained_window", "weights", "corpus")
        self.about = {**dict.fromkeys(names, ""), "seed": 0, "train_length": train_length}

    def view(self, variant, length):
        return View(self.model, None, "", "", "")

    def rows(self, protocol: str, lengths: list[int], targets: int) -> list:
        self.eval = EvalConfig(lengths=lengths, protocols=[protocol], targets=targets, controls=False)
        evaluator = Evaluator(self, torch.device("cpu"))
        return sorted(
            evaluator.rows(evaluator.jobs(Variant("", None, Window(Dims(8, 1, 1, 16))))), key=lambda r: r.length
        )


def blind(seen: list[int]) -> None:
    """Know nothing of what it reads."""


def earlier_name(seen: list[int]) -> int | None:
    """The letter that follows in the last whole mention of a name that begins like the one at the end."""
    text = bytes(seen)
    (begun,) = re.findall(rb"[A-Z]*$", text)[:1]
    mentions = [match[0] for match in DRAWN.finditer(text) if match.start() and match.end() < len(text)]
    return next((name[len(begun)] for name in reversed(mentions) if name.startswith(begun) and name != begun), None)


STORY = (
    "Then came Alice, and with her Bob. We saw Alice and Mrs. Dodo, said Bob, and so did Carol. Then the then of ROME. "
    "In Rome the dodo saw Alice, and Bob went to Rome. There Alice met Eve, and Bob was glad of Alice and of Rome. "
)


def test_names_are_capitalised_inside_sentences_and_nowhere_in_lower_case():
    assert names_of(STORY, 9) == ["Alice", "Bob", "Eve", "Rome"], "Carol and Dodo never stand inside, Then is a word"
    assert names_of(STORY, 2) == ["Alice", "Bob"] and names_of("no names. None.", 3) == []


def test_every_segment_has_its_own_names_and_the_rest_of_the_text_stays():
    story = STORY * 60
    one, two, *others = with_new_names([story], Split.train, 3)
    mentions = {segment: re.findall(r"\b[A-Z]{4,6}\b", segment) for segment in (one, two)}
    assert abs(len(one) - SEGMENT[Split.train]) < 500, "but for the length of the names"
    assert [len(set(found)) for found in mentions.values()] == [3, 3]
    assert not set(mentions[one]) & set(mentions[two]) and len({name[0] for name in mentions[one]}) == 3
    known = dict(zip(mentions[one], ["Alice", "Bob", "Alice", "Bob", "Alice", "Bob", "Alice", "Eve"], strict=False))
    back = re.sub("|".join(known), lambda name: known[name[0]], one)
    assert story.replace("ROME", "Rome").startswith(back), (
        "all mentions of a name got the same one, and nothing else changed"
    )
    assert [one, two, *others] == list(with_new_names([story], Split.train, 3))
    assert one != next(with_new_names([story], Split.valid, 3))[: len(one)]


def test_the_distance_of_a_name_counts_from_its_last_mention_in_the_document(tmp_path):
    store = entities(tmp_path)
    tokens = store.split(Split.valid)
    found, text = distances(tokens), bytes(tokens.ids[: tokens.starts[1]].tolist())
    for match in DRAWN.finditer(text):
        before = text.rfind(match[0], 0, match.start())
        expected = [place - before if before >= 0 and place > match.start() else 0 for place in range(*match.span())]
        assert found[slice(*match.span())].tolist() == expected
    inside = np.zeros(len(text), dtype=bool)
    for match in DRAWN.finditer(text):
        inside[slice(*match.span())] = True
    assert not found[: len(text)][~inside].any()
    second = bytes(tokens.ids[tokens.starts[1] : tokens.starts[2]].tolist())
    first_mention = next(DRAWN.finditer(second))
    assert not found[tokens.starts[1] + first_mention.start() :][: len(first_mention[0])].any(), "another document"


def entities(tmp_path, **other):
    far = [
        " ".join([STORY if n % 3 == 0 else f"On day {n} it rained in {'Paris' if n % 7 == 0 else 'towns'} of old."] * 1)
        for n in range(1600)
    ]
    for name, part in (("train", far[:800]), ("valid", far[800:])):
        (tmp_path / f"{name}.txt").write_text(" ".join(part))
    config = DataConfig(
        source=Source.files,
        paths=str(tmp_path / "train.txt"),
        valid=str(tmp_path / "valid.txt"),
        **{"names": 6, "tokenizer": "bytes", "cache": str(tmp_path / "cache")} | other,
    )
    return load_store(config, lambda line: None)


@pytest.mark.slow
def test_names_cost_nothing_to_who_looks_back_far_enough_and_everything_to_who_does_not(tmp_path):
    store = entities(tmp_path)
    knows, knows_not = (Reading(tmp_path, store, 64, answer, CAPITALS) for answer in (earlier_name, blind))
    rows = knows.rows("same_targets", [64, 256, 2048], 512)
    assert len({row.targets_hash for row in rows}) == 1 and rows[-1].targets > 20
    assert rows[-1].length == 2048 and rows[-1].nll < 1e-5 and rows[-1].accuracy == 1
    assert rows[-2].nll > 0.1, "some names were mentioned further back than a short input reaches"
    assert all(row.nll == pytest.approx(math.log(26)) for row in knows_not.rows("same_targets", [64, 1024], 512))
    by = knows.rows("by_distance", [1024], 1024)
    assert len(by) > 3 and all(row.nll < 1e-5 for row in by)
    assert all(row.nll == pytest.approx(math.log(26)) for row in knows_not.rows("by_distance", [1024], 1024))


def test_a_store_of_entities_is_the_same_everywhere_and_its_splits_share_no_name(tmp_path):
    (tmp_path / "other").mkdir()
    one, two = entities(tmp_path), entities(tmp_path / "other")
    assert one.key == two.key and one.split(Split.train).sha256 == two.split(Split.train).sha256
    assert entities(tmp_path, names=0).key != one.key != entities(tmp_path, names=5).key
    drawn = [set(DRAWN.findall(bytes(one.split(split).ids.tolist()))) for split in (Split.train, Split.valid)]
    assert not drawn[0] & drawn[1] and len(drawn[0]) > 50
    assert distances(entities(tmp_path, names=0).split(Split.valid)) is None
    with pytest.raises(Misuse, match=r"data\.names=6 needs data=files and data\.tokenizer=bytes"):
        entities(tmp_path, tokenizer="bpe")


@pytest.mark.slow
def test_entities_go_from_training_to_a_report(tmp_path):
    entities(tmp_path)
    words = ["data=entities", "data.paths=train.txt", "data.valid=valid.txt", "data.cache=cache", "model.d_model=32"]
    small = ["model.n_layer=1", "model.n_head=2", "train.length=64", "train.tokens=4096", "wandb.mode=disabled"]
    answer = here("train", "+scheme=alibi", *words, *small, "eval.targets=512", "--lengths", "64,256", cwd=tmp_path)
    assert answer.code == 0, answer.err
    (path,) = (tmp_path / "results" / "default").glob("alibi-*/rows.jsonl")
    rows = list(jsonl.read_lines(path, pytest.fail))
    assert {row["protocol"] for row in rows} == {"same_targets", "level", "by_distance"}
    (row,) = [
        one for one in rows if (one["protocol"], one["length"]) == ("same_targets", 256) and not one.get("control")
    ]
    kept = np.load(path.parent / "losses" / f"same_targets-256-{row['targets_hash']}.npz")
    assert len(kept["nll"]) == row["targets"] and kept["nll"].mean() == pytest.approx(row["nll"], rel=1e-5)
    assert here("report", cwd=tmp_path).code == 0


def recall(tmp_path, **other):
    known = {"source": Source.track, "track": "recall", "tokenizer": "none", "vocab_size": 72, "track_documents": 8}
    return load_store(DataConfig(**known | {"cache": str(tmp_path / "cache")} | other), lambda line: None)


def value_of_key(seen: list[int]) -> int | None:
    """The value behind the last occurrence of the key at the end."""
    return next((seen[i + 1] for i in range(len(seen) - 2, -1, -1) if seen[i] == seen[-1] < KEYS), None)


KEYS = 64


@pytest.mark.slow
def test_a_document_of_recall_keeps_its_values_and_asks_keys_at_log_uniform_distances(tmp_path):
    tokens = recall(tmp_path).split(Split.valid)
    documents = np.split(np.asarray(tokens.ids), tokens.starts[1:-1])
    for ids in documents[:4]:
        keys, values = ids[::2][:-1].tolist(), ids[1::2].tolist()
        assert max(keys) < KEYS <= min(values), "pairs of a key and a value"
        assert len({*zip(keys, values, strict=True)}) == len(set(keys)), "one value a key"
    assert not np.array_equal(documents[0], documents[1])
    found = distances(tokens)
    for target in (*range(2, 400), *range(16_385, 16_600)):
        begin = target // 16_385 * 16_385
        places = [i for i in range(begin, target - 1) if tokens.ids[i] == tokens.ids[target - 1] < KEYS]
        assert found[target] == (target - places[-1] if places else 0)
    octaves = np.histogram((found[found > 0] - 1) // 2, 2 ** np.arange(9))[0]
    assert octaves.sum() > 0.95 * (found > 0).sum() and octaves.max() < 1.35 * octaves.min()


@pytest.mark.slow
def test_recall_costs_nothing_to_who_looks_back_far_enough_and_log_8_to_who_does_not(tmp_path):
    store = recall(tmp_path)
    knows, knows_not = (Reading(tmp_path, store, 64, answer, range(KEYS, 72)) for answer in (value_of_key, blind))
    lengths = [16, 64, 512]
    rows = knows.rows("same_targets", lengths, 1024)
    assert len({row.targets_hash for row in rows}) == 1
    for row in rows:
        assert row.nll == pytest.approx(row.optimum, abs=1e-5), "the predictor of the test is the best one"
    losses = [row.nll for row in rows if row.length in lengths]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1] + 1
    assert all(row.nll == pytest.approx(math.log(8)) for row in knows_not.rows("same_targets", lengths, 1024))
    by = knows.rows("by_distance", [512], 512)
    assert all(row.nll < 1e-5 and row.accuracy == 1 and row.optimum == 0 for row in by) and len(by) > 10
    assert all(row.nll == pytest.approx(math.log(8)) for row in knows_not.rows("by_distance", [512], 512))
    (whole,) = knows.rows("nonoverlapping", [64], 1024)
    assert whole.optimum is None, "the best loss of keys is not known"


@pytest.mark.slow
def test_recall_is_the_same_everywhere_and_its_splits_differ(tmp_path):
    one, two = recall(tmp_path), recall(tmp_path / "other")
    assert one.key == two.key != recall(tmp_path, vocab_size=80).key
    train, valid, test = (np.asarray(one.split(split).ids)[:2049] for split in Split)
    assert not np.array_equal(train, valid) and not np.array_equal(valid, test) and not np.array_equal(train, test)
    with pytest.raises(Misuse, match=r"data\.vocab_size=60 must be at least 64 for recall"):
        recall(tmp_path, vocab_size=60)
