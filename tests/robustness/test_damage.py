"""Every file of a real run, cut off or with a bit flipped: a line names it or it is healed, and no number is wrong."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import here
from support.faults import SMALL, dice, differing, only, rows_of, start, tally, times, weights_of, write_text

pytestmark = [pytest.mark.slow, pytest.mark.faults]

TRAIN = ["train", "+scheme=rope", *SMALL]
EVAL = ["eval", "wandb.mode=disabled", "device=cpu", "--lengths", "8,16,32"]
COMMANDS = {
    "runs": ["runs"],
    "report": ["report"],
    "eval": EVAL,
    "train": TRAIN,
    "again": EVAL,
    "report again": ["report"],
}
# The kinds of files that there are, by where they are.
FILES = {
    "config.yaml": "results/default/rope-*/config.yaml",
    "provenance.json": "results/default/rope-*/provenance.json",
    "metrics.jsonl": "results/default/rope-*/metrics.jsonl",
    "rows.jsonl": "results/default/rope-*/rows.jsonl",
    "checkpoint tensors": "results/default/rope-*/checkpoint/*.safetensors",
    "checkpoint json": "results/default/rope-*/checkpoint/*.json",
    "token losses": "results/default/rope-*/losses/*.npz",
    "tokenizer.json": "results/default/rope-*/tokenizer.json",
    "train.log": "results/default/rope-*/train.log",
    "store ids": "cache/tokens/*/*.bin",
    "store documents": "cache/tokens/*/*.npy",
    "store.json": "cache/tokens/*/store.json",
    "store tokenizer": "cache/tokens/*/tokenizer.json",
}
BY_HAND = {"config.yaml", "provenance.json", "metrics.jsonl", "rows.jsonl"}
Damage = Callable[[bytes, random.Random], bytes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    write_text(folder / "text")
    start(*TRAIN, cwd=folder).ended_well()
    start("report", cwd=folder).ended_well()
    return folder


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([0, 1, len(data) - 1, draw.randrange(len(data))])]


def flip(data: bytes, draw: random.Random) -> bytes:
    at, bit = draw.randrange(len(data)), 1 << draw.randrange(8)
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def either(data: bytes, draw: random.Random) -> bytes:
    return draw.choice([cut, flip])(data, draw)


@pytest.mark.parametrize("damage", times([either], [cut, flip]))
@pytest.mark.parametrize("kind", list(FILES)[:: times(2, 1)])
def test_a_damaged_file_is_named_or_healed_and_no_number_is_wrong(world, tmp_path, kind, damage):
    if kind in BY_HAND:
        damage = cut  # a flipped bit may be another number, as an edit by hand
    draw, count = dice(), times(1, 4 if damage is cut else 10)
    calm = only(world / "results")
    wanted = {row_key(row): row for row in rows_of(calm)}
    table = (world / "results" / "default" / "report" / "table.md").read_text()
    named = unseen = 0
    for n in range(count):
        place = Path(shutil.copytree(world, tmp_path / str(n)))
        path = draw.choice(sorted(place.glob(FILES[kind])))
        path.write_bytes(damage(path.read_bytes(), draw))
        told = False
        size_kept = kind in {"store ids", "store documents", "store tokenizer"} and damage is not cut
        if size_kept and path.stat().st_size == (world / path.relative_to(place)).stat().st_size:
            refused = here("runs", "--verify", cwd=place)  # a store is opened by its sizes
            named_by = path.name, f"split '{path.name.partition('.')[0]}'"
            assert refused.code == 1 and any(name in refused.err for name in named_by), refused
            assert "remove the folder" in refused.err
            shutil.rmtree(path.parent)
        for name, words in draw.sample(list(COMMANDS.items()), times(3, 4)):
            shutil.rmtree(place / "results" / "default" / "report", ignore_errors=True)
            answer = here(*words, cwd=place)
            said = answer.err + answer.out
            assert "Traceback" not in said and "unexpected" not in said, (path, words, said)
            assert answer.code in (0, 1, 2), said
            told |= tells(said, path)
            if answer.code:
                assert answer.refusal(answer.code)
                assert tells(said, path), (path, words, said)
                remedy = re.search(r"(\S+): \S.*remove it and repeat the run's train command", said)
                if remedy:
                    path.unlink()
                    assert here(*TRAIN, cwd=place).code == 0
            run = only(place / "results")
            complete = len(rows_of(run)) == len(wanted)  # else cut between two rows: the next evaluation adds them
            if name.startswith("report") and answer.code == 0 and complete and not tells(said, path):
                assert (place / "results" / "default" / "report" / "table.md").read_text() == table, (path, said)
            for row in rows_of(run):
                assert differing(row, wanted[row_key(row)]) == {}, path
        named += told
        unseen += not told
        # whatever it was: trained and measured again, all is there
        answer = here(*TRAIN, cwd=place)
        if answer.code and "remove it and repeat the run's train command" in answer.err:
            path.unlink()
            answer = here(*TRAIN, cwd=place)
        assert answer.code == 0, (path, answer.err)
        run = only(place / "results")
        assert weights_of(run) == weights_of(calm), path
        assert {row_key(row) for row in rows_of(run)} == wanted.keys(), path
        shutil.rmtree(place)
    what = "cut off" if damage is cut else "with a bit flipped"
    tally(
        f"{kind} {what}", count, f"nothing for good: {named} named and healed or remedied, {unseen} made no difference"
    )


def row_key(row: dict) -> str:
    return json.dumps([row[name] for name in ("protocol", "length", "control", "weights")])


def tells(said: str, path: Path) -> bool:
    """Whether a line names the file, or what it is a part of."""
    if "tokens" in path.parts:
        return path.name in said or path.parent.name in said
    others = {
        "metrics.jsonl": "finished",
        "rows.jsonl": "measured",
        ".safetensors": "checkpoint",
        ".json": "checkpoint",
    }
    return path.name in said or others.get(path.name, others.get(path.suffix, path.name)) in said
