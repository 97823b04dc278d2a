"""Synthetic tasks: their examples, their splits, and what exact_match says of a model that solves them."""

import re
from itertools import islice
from string import ascii_lowercase

import numpy as np
import pytest
import torch
from support.command import here
from torch import nn

from posexp.config.sections import DataConfig, EvalConfig, Source, Split
from posexp.data import tasks, tokenizer
from posexp.data.load import load_store
from posexp.data.store import key_of
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.evaluation.evaluate import Evaluator
from posexp.evaluation.interfaces import View
from posexp.evaluation.plan import plan
from posexp.evaluation.targets import targets_hash, targets_of
from posexp.evaluation.tasks import FEWEST, MOST
from posexp.evaluation.variants import Variant
from posexp.runs.run import Run
from posexp.storage import jsonl
from posexp.windows import Window

SHAPES = {
    **dict.fromkeys(("copy", "copy_unique", "sort", "mode"), r"[a-z]{N}>"),
    "selective_copy": r"[a-z.]{N}>",
    "parity": r"[01]{N}>",
    "flipflop": r"(w[01])(?=([wri][01])*r$)(.[01]){N-1}r",
    "reverse": r"[a-z]{N}>",
    "addition": r"\d{N}\+\d{N}=",
    "induction": r"([a-zA-Z]\d){N}>[a-zA-Z]",
    "passkey": r"([^.\d]+\.){N} What is the key\? The key is ",
    **dict.fromkeys(("needle", "needle_multi"), r"([^.\d]+\.){N} What is the code of [A-Z]\? It is "),
    "variables": r"([^.\d]+\.){N} Which letters are \d{5}\? They are ",
}


def setting(tmp_path, name: str, **knobs) -> DataConfig:
    values = {"tokenizer": "bytes", "task_size": 6, "task_examples": 400, "cache": str(tmp_path / "cache")}
    return DataConfig(source=Source.task, task=name, **(values | knobs))


def quietly(line: str) -> None:
    pass


def measured(store, sizes: list[int], bound: int | None = None, split: Split = Split.valid):
    config = EvalConfig(lengths=sizes, protocols=["exact_match"], targets=bound, split=split)
    return sorted(plan(store.split(split), config, sizes), key=lambda row: row.length)


def solved(name: str, prompt: str) -> str:
    """Each task's answer, found another way than the examples are made."""
    text = prompt.removesuffix(">")
    if name in ("copy", "copy_unique", "selective_copy"):
        return text.replace(".", "")
    if name == "sort":
        return "".join(letter * text.count(letter) for letter in ascii_lowercase)
    if name == "mode":
        (best,) = [one for one in set(text) if all(text.count(one) > text.count(other) for other in set(text) - {one})]
        return best
    if name == "parity":
        return str(sum(map(int, text)) % 2)
    if name == "flipflop":
        assert all(read == written for written, read in re.findall(r"w(.)(?:i.)*r(.)", text)), "reads inside are right"
        return text[text.rindex("w") + 1]
    if name == "reverse":
        return "".join(reversed(prompt.removesuffix(">")))
    if name == "addition":
        one, other = prompt.removesuffix("=").split("+")
        total = int(one[::-1]) + int(other[::-1])
        return f"{total:0{len(one) + 1}}"[::-1]
    if name == "induction":
        pairs, _, key = prompt.rpartition(">")
        return dict(zip(pairs[::2], pairs[1::2], strict=True))[key]
    if name in ("needle", "needle_multi"):
        told = re.findall(r"The code of ([A-Z]) is (\d{5})\.", prompt)
        assert len(dict(told)) == (1 if name == "needle" else tasks.NEEDLES)
        return dict(told)[re.search(r"the code of (.)\?", prompt)[1]] + "."
    if name == "variables":
        value: dict[str, str] = {}
        for letter, said in re.findall(r"([A-Z]) = (\w+)\.", prompt):
            value[letter] = value.get(said, said)
        assert len(value) == 6 and all(number.isdigit() for number in value.values()), "no variable before its value"
        asked = re.search(r"are (\d+)\?", prompt)[1]
        return "".join(letter for letter in value if value[letter] == asked) + "."
    return re.findall(r"The key is (\d+\.)", prompt)[0]


@pytest.mark.parametrize("name", tasks.TASKS)
def test_examples_have_their_size_and_the_right_answer(name):
    for size in {max(tasks.LEAST.get(name, 1), size) for size in (1, 2, 7, 40)}:
        for prompt, answer in islice(tasks.examples(name, range(size, size + 1), Split.train), 50):
            told = r"The key is (\d{5})\. Remember \1\.|The code of [A-Z] is \d{5}\.|[A-Z] = \w+\."
            plain = re.sub(rf"( |^)({told})".replace("\\1", "\\3"), "", prompt).lstrip()
            assert re.fullmatch(SHAPES[name].replace("N-1", str(size - 1)).replace("N", str(size)), plain), prompt
            assert answer == solved(name, prompt)


def test_the_least_digit_comes_first_and_zeros_are_written():
    sums = dict(example for split in Split for example in islice(tasks.examples("addition", range(1, 2), split), 1000))
    assert len(sums) == 100
    assert (sums["7+8="], sums["9+9="], sums["3+4="], sums["0+0="]) == ("51", "81", "70", "00")
    assert solved("addition", "21+59=") == "701", "12 + 95 = 107"


@pytest.mark.parametrize("name", tasks.TASKS)
def test_no_prompt_is_in_two_splits_and_sizes_come_evenly(name, tmp_path):
    read = tasks.read_task(setting(tmp_path, name, task_examples=2000, task_size=6 if name not in tasks.LEAST else 20))
    held = {split: list(lines) for split, lines in read.items()}
    asked = re.compile(
        r".*>[a-zA-Z]" if name == "induction" else r".*[>=]|.*\? (?:The key|It|They) (?:is|are) |w.*r(?=.$)"
    )
    prompts = {split: {asked.match(line)[0] for line in lines} for split, lines in held.items()}
    assert not prompts[Split.train] & prompts[Split.valid] and not prompts[Split.train] & prompts[Split.test]
    assert not prompts[Split.valid] & prompts[Split.test]
    assert [len(held[split]) for split in Split] == [2000, 100, 100]
    lengths = [len(line) for line in held[Split.train]]
    if name in ("copy", "copy_unique", "reverse", "sort"):
        counts = np.bincount(lengths)[[2 * size + 2 for size in range(1, 7)]]
        assert counts.sum() == 2000 and counts.min() > 250


def test_a_store_of_a_task_says_so_and_is_rebuilt_to_the_same_key(tmp_path):
    config = setting(tmp_path, "reverse")
    store = load_store(config, quietly)
    assert store.meta["task"] == {"name": "reverse", "size": 6}
    tokens, decoder = store.split(Split.train), tokenizer.load_tokenizer(store.tokenizer_path)
    first = decoder.decode(tokens.ids[: tokens.starts[1]].tolist())
    assert re.fullmatch(r"([a-z]+)>([a-z]+)\n", first) and len(tokens.starts) == 401
    again = load_store(setting(tmp_path / "elsewhere", "reverse"), quietly)
    assert again.key == store.key and again.split(Split.train).sha256 == tokens.sha256
    others = [
        setting(tmp_path, "copy"),
        setting(tmp_path, "reverse", task_size=7),
        setting(tmp_path, "reverse", task_examples=401),
    ]
    assert len({store.key, *map(key_of, others)}) == 4


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"source": Source.task}, "no task ''; there are copy, copy_unique, selective_copy, reverse"),
        ({"source": Source.task, "task": "count"}, "no task 'count'; there are copy"),
        ({"source": Source.task, "task": "parity", "task_size": 7}, "parity has sizes from 8 on, not 7"),
        ({"source": Source.task, "task": "induction", "task_size": 70}, "induction has at most 52 pairs, not"),
        ({"task": "copy"}, "data.task belongs to data=copy, not to data=stdlib"),
    ],
)
def test_a_task_that_cannot_be_made_is_named_in_one_line(tmp_path, knobs, complaint):
    with pytest.raises(Misuse, match=complaint):
        load_store(DataConfig(tokenizer="bytes", cache=str(tmp_path), **knobs), quietly)


def test_exact_match_on_a_hand_made_case(tmp_path):
    store = load_store(setting(tmp_path, "copy"), quietly)
    three, nine = measured(store, [3, 9], bound=1)
    assert (three.length, three.trained, three.task, three.stride) == (3, 6, True, None)
    for row, size in ((three, 3), (nine, 9)):
        assert len(row.windows) == FEWEST == len(row.tokens.starts) - 1
        for index, (start, first, stop) in enumerate(row.windows.tolist()):
            assert (start, stop) == (index * (2 * size + 3), (index + 1) * (2 * size + 3))
            text = bytes(row.tokens.ids[start:stop].tolist()).decode()
            assert re.fullmatch(rf"\n([a-z]{{{size}}})>\1\n", text)
            assert text[first - start :] == text[-size - 1 :], "the answer and the end of its line"
            assert tasks.home(text[1 : size + 2]) is Split.valid, "no example of training"


def test_a_bound_says_how_many_examples_and_all_runs_get_the_same(tmp_path):
    store = load_store(setting(tmp_path, "copy"), quietly)
    (row,) = measured(store, [9], bound=1000)
    assert len(row.windows) == 100
    (row,) = measured(store, [9])
    assert len(row.windows) == MOST
    other = load_store(setting(tmp_path, "copy", task_size=4, task_examples=100), quietly)
    hashes = [targets_hash(r.tokens, targets_of(r.windows)[0]) for s in (store, other) for r in measured(s, [9])]
    assert hashes[0] == hashes[1]
    (tested,) = measured(store, [9], split=Split.test)
    assert tasks.home(bytes(tested.tokens.ids[1:11].tolist()).decode()) is Split.test


def test_an_answer_is_told_from_its_prompt_by_tokens_of_several_letters_too(tmp_path):
    store = load_store(setting(tmp_path, "passkey", tokenizer="bpe", vocab_size=300), quietly)
    (row,) = measured(store, [3], bound=1)
    decoder = tokenizer.load_tokenizer(store.tokenizer_path)
    for start, first, stop in row.windows.tolist():
        assert re.fullmatch(r" ?\d{5}\.\n", decoder.decode(row.tokens.ids[first:stop].tolist()))
        assert "The key is" in decoder.decode(row.tokens.ids[start:first].tolist())[-14:]


def test_text_that_is_no_task_has_no_exact_match(tmp_path):
    (tmp_path / "a.txt").write_text("some text " * 100)
    config = DataConfig(source=Source.files, paths=str(tmp_path / "a.txt"), tokenizer="bytes", cache=str(tmp_path))
    with pytest.raises(Misuse, match=r"exact_match needs a task to solve: choose one with data=copy\|copy_unique"):
        measured(load_store(config, quietly), [4])


@pytest.mark.parametrize("name", tasks.TASKS)
@pytest.mark.parametrize("split", Split)
def test_even_the_smallest_size_has_examples_in_every_split(name, split):
    least = tasks.LEAST.get(name, 1)
    prompt, answer = next(tasks.examples(name, range(least, least + 1), split))
    assert tasks.home(prompt) is split and answer == solved(name, prompt)


def test_no_three_letters_in_a_row_occur_twice_in_copy_unique_and_letters_of_selective_copy_are_a_quarter():
    for prompt, _ in islice(tasks.examples("copy_unique", [256], Split.train), 20):
        grams = [prompt[i : i + 3] for i in range(254)]
        assert len(set(grams)) == 254
    plain = [prompt for prompt, _ in islice(tasks.examples("copy", [256], Split.train), 20)]
    assert any(len({text[i : i + 3] for i in range(254)}) < 254 for text in plain), "copy itself repeats some"
    for size, letters in ((3, 1), (40, 10), (64, 16), (256, 16)):
        assert {len(answer) for _, answer in islice(tasks.examples("selective_copy", [size], Split.train), 20)} == {
            letters
        }


class Solver(nn.Module):
    """Copies what stands before `>`; `errs` letters of each answer are wrong."""

    def __init__(self, errs: int):
        super().__init__()
        self.errs = errs

    def forward(self, tokens_BT, last=None):
        rows = [bytes(row).decode() for row in tokens_BT.tolist()]
        first = tokens_BT.shape[1] - (last or tokens_BT.shape[1])
        after = [[ord(self.next(row[: t + 1])) for t in range(first, len(row))] for row in rows]
        return torch.tensor(after)[..., None]

    def next(self, seen: str) -> str:
        prompt, arrow, written = seen.rpartition("\n")[2].partition(">")
        if not arrow or len(written) == len(prompt):
            return "\n"
        return "#" if len(written) < self.errs else prompt[len(written)]

    def logits(self, hidden):
        return torch.where(torch.arange(256) == hidden, 30.0, 0.0)


class Solving:
    """A Subject that is no run."""

    train_length = 16

    def __init__(self, tmp_path, store, errs: int, max_length: int | None = None):
        self.run, self.store, self.max_length = Run(tmp_path), store, max_length
        self.tokens = store.split(EvalConfig().split)
        self.model = Solver(errs)
        names = ("run", "scheme", "trained_window", "weights", "corpus")
        self.about = {**dict.fromkeys(names, ""), "seed": 0, "train_length": 16}

    def view(self, variant, length):
        return View(self.model, self.max_length, "", "", "")

    def rows(self, sizes: list[int], protocol: str = "exact_match") -> dict[int, dict]:
        self.eval = EvalConfig(lengths=sizes, protocols=[protocol], targets=64)
        evaluator = Evaluator(self, torch.device("cpu"))
        jobs = evaluator.jobs(Variant("", None, Window(Dims(8, 1, 1, 16))))
        return {row.length: row.values() for row in evaluator.rows(jobs)}


def test_only_a_model_without_any_error_has_exact_matches(tmp_path):
    store = load_store(setting(tmp_path, "copy"), quietly)
    right, wrong = Solving(tmp_path, store, 0).rows([4, 12]), Solving(tmp_path, store, 1).rows([4, 12])
    for size in (4, 12):
        assert (right[size]["exact_match"], right[size]["accuracy"]) == (1, 1) and right[size]["nll"] < 1e-6
        assert wrong[size]["exact_match"] == 0
        assert wrong[size]["accuracy"] == pytest.approx(size / (size + 1)), "one of the letters and the line's end"
        assert right[size]["targets_hash"] == wrong[size]["targets_hash"]
        assert right[size]["train_length"] == 6 and right[size]["documents"] == FEWEST
    ended = Solving(tmp_path, store, 0, max_length=12).rows([4, 12])
    assert {size: row["status"] for size, row in ended.items()} == {4: "ok", 12: "undefined"}


def test_by_index_tells_where_in_the_longest_answers_the_errors_are(tmp_path):
    store = load_store(setting(tmp_path, "copy"), quietly)
    found = Solving(tmp_path, store, 10).rows([4, 64], "by_index")
    assert list(found) == list(range(2, 65, 2)), "32 ranges of the largest size's letters, without the line end"
    assert {place: row["accuracy"] for place, row in found.items()} == {n: float(n > 10) for n in range(2, 65, 2)}
    assert {row["targets"] for row in found.values()} == {2 * FEWEST} and found[2]["exact_match"] is None
    assert {row["train_length"] for row in found.values()} == {6} and len(
        {r["targets_hash"] for r in found.values()}
    ) == 1
    assert list(Solving(tmp_path, store, 0).rows([5], "by_index")) == [1, 2, 3, 4, 5]


TINY = [
    *("model.d_model=32", "model.n_layer=1", "model.n_head=2", "data.cache=cache", "data.task_examples=500"),
    *("train.tokens=4000", "train.batch_tokens=256", "wandb.mode=disabled"),
]


@pytest.mark.slow
def test_a_task_goes_from_training_to_a_report(tmp_path):
    small = [*TINY, "data=addition", "data.task_size=3", "train.length=32", "eval.targets=64"]
    answer = here(
        "train", "+scheme=learned", *small, "eval.protocols=[exact_match,by_index]", "--lengths", "3,6,40", cwd=tmp_path
    )
    assert answer.code == 0, answer.err
    (path,) = (tmp_path / "results" / "default").glob("learned-*/rows.jsonl")
    lines = [row for row in jsonl.read_lines(path, pytest.fail)]
    rows = {row["length"]: row for row in lines if row["protocol"] == "exact_match"}
    assert {size: row["status"] for size, row in rows.items()} == {3: "ok", 6: "ok", 40: "undefined"}
    assert rows[3]["train_length"] == 3 and 0 <= rows[3]["exact_match"] <= rows[3]["accuracy"] <= 1
    assert here("report", cwd=tmp_path).code == 0
    tokens = here("report", "measure=token_accuracy", "folder=tokens", cwd=tmp_path)
    assert "token accuracy in percent" in tokens.out and "exact match" not in tokens.out, tokens.err


def test_a_task_is_measured_as_one_unless_something_else_is_asked_for(tmp_path):
    small = [*TINY, "data=copy", "data.task_size=3", "train.length=32", "eval.targets=64"]
    answer = here("train", "+scheme=alibi", *small, cwd=tmp_path)
    assert answer.code == 0 and "% exactly right" in answer.err, answer.err
    (path,) = (tmp_path / "results" / "default").glob("alibi-*/rows.jsonl")
    rows = list(jsonl.read_lines(path, pytest.fail))
    assert [(row["protocol"], row["length"]) for row in rows] == [("exact_match", size) for size in (48, 24, 12, 6, 3)]
    lengths = ["eval.protocols=[nonoverlapping]", "wandb.mode=disabled"]
    assert here("eval", *lengths, cwd=tmp_path).code == 0
    added = list(jsonl.read_lines(path, pytest.fail))[len(rows) :]
    assert [row["length"] for row in added] == [64, 32], "in tokens, within the reach of the text"


@pytest.mark.slow
def test_the_experiment_of_tasks_can_be_run_as_its_first_line_says(tmp_path):
    words = ["train", "+experiment=tasks", "+scheme=alibi", *TINY, "eval.targets=64"]
    assert here(*words, cwd=tmp_path).code == 0
    (path,) = (tmp_path / "results" / "tasks").glob("alibi-*/rows.jsonl")
    rows = list(jsonl.read_lines(path, pytest.fail))
    assert {row["protocol"] for row in rows} == {"exact_match"} and min(row["length"] for row in rows) > 0
    assert max(row["length"] for row in rows) >= 4 * rows[0]["train_length"]


def test_an_ordinary_run_has_no_exact_match(tmp_path):
    (tmp_path / "text.txt").write_text("some words of text " * 300)
    words = [*TINY[:4], *TINY[5:], "data=files", "data.paths=text.txt", "data.vocab_size=300", "train.length=16"]
    answer = here("train", "+scheme=none", *words, "eval.protocols=[exact_match]", "--lengths", "8", cwd=tmp_path)
    assert "exact_match needs a task" in answer.refusal()
    assert not (tmp_path / "results").exists()
