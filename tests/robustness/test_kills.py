"""A process killed at any moment loses nothing but the work since its last checkpoint."""

import random
import re
import shutil
import time
from pathlib import Path

import pytest
from support.command import TINY
from support.faults import (
    SMALL,
    Command,
    assert_same_rows,
    dice,
    losses_of,
    only,
    start,
    tally,
    times,
    weights_of,
    write_text,
)

from posexp.runs import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.faults]

TRAIN = ["train", "+scheme=rope", *SMALL]
# Steps that take less time than the checkpoint after each.
SAVING = [*TRAIN, "model.d_model=192", "model.n_layer=2", "train.tokens=2048", "train.checkpoint_every=1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text and a token store."""
    folder = tmp_path_factory.mktemp("kills")
    write_text(folder / "text")
    start("train", "+scheme=rope", *TINY, "device=cpu", "--lengths", "8", "results=first", cwd=folder).ended_well()
    return folder


def timed(*words: str, cwd: Path, after: str) -> float:
    """Seconds that a command goes on after it said a word."""
    command = start(*words, cwd=cwd)
    command.until(after)
    began = time.monotonic()
    command.ended_well()
    return time.monotonic() - began


def disturb(command: Command, draw: random.Random, after: str, seconds: float) -> bool:
    """Kills it at a moment within `seconds`, mostly after it said a word, at times before; whether it was there."""
    if draw.random() < 0.8:
        command.until(after)
    command.process.join(draw.uniform(0, seconds))
    there = command.alive()
    command.kill()
    return there


@pytest.mark.parametrize(("kind", "words"), [("training", TRAIN), ("saving", SAVING)])
def test_a_run_killed_again_and_again_ends_with_the_weights_and_rows_of_one_left_alone(world, kind, words):
    seconds = timed(*words, f"results=calm-{kind}", cwd=world, after="training from")
    calm = only(world / f"calm-{kind}")
    count, draw = times(2 if kind == "training" else 1, 50), dice()
    kills = halves = runs = 0
    while kills < count:
        runs += 1
        results, ended = world / f"{kind}-{runs}", False
        while not ended:
            folders = [path.parent for path in results.glob("*/*/config.yaml")]
            saved = checkpoint.steps(folders[0] / "checkpoint")[:1] if folders else []
            command = start(*words, f"results={results}", cwd=world)
            ended = not disturb(command, draw, "training from", seconds) if kills < count else command.wait() == 0
            began = re.search(r"training from step (\d+)", command.said)
            assert began is None or int(began[1]) == (saved or [0])[0], "all that was saved is gone on from"
            assert "damaged" not in command.said and "Traceback" not in command.said, command.said
            if not ended:
                kills += 1
                written = {path.name for path in results.glob("*/*/checkpoint/*")}
                halves += any(".tmp" in name for name in written) or len(written) % 2
        run = only(results)
        assert weights_of(run) == weights_of(calm)
        assert losses_of(run) == losses_of(calm)
        assert_same_rows(run, calm)
        assert {path.name for path in (run / "checkpoint").iterdir()} == {
            p.name for p in (calm / "checkpoint").iterdir()
        }
        shutil.rmtree(results)
    found = f"{runs} runs ended with the same bits of weights, optimizer and training losses, and the same rows"
    caught = f" ({halves} kills left half a checkpoint)" if halves else ""
    tally(f"`kill -9` while {kind}", kills, f"the steps since the last checkpoint; {found}{caught}")


def test_a_store_whose_builders_are_killed_is_the_one_of_a_builder_left_alone(tmp_path):
    write_text(tmp_path / "text", documents=60)
    words = ["train", "+scheme=rope", *TINY, "train.tokens=256", "device=cpu", "--lengths", "8"]
    seconds = timed(*words, "data.cache=calm", cwd=tmp_path, after="building") / 2  # the rest trains
    calm = {path.name: path.read_bytes() for path in (tmp_path / "calm").glob("tokens/*/*")}
    count, draw = times(2, 50), dice()
    kills = stores = 0
    cache = tmp_path / "cache"
    while kills < count or cache.exists():
        command = start(*words, f"results=r{stores}", cwd=tmp_path)
        while command.alive() and not list(cache.glob("tokens/*-building")):
            time.sleep(0.002)
        if kills < count:
            command.process.join(draw.uniform(0, seconds))
        else:
            command.wait()
        kills += command.alive() and bool(list(cache.glob("tokens/*-building")))
        command.kill()
        assert "damaged" not in command.said and "Traceback" not in command.said, command.said
        for store in cache.glob("tokens/*/store.json"):  # in its place, and so whole
            assert {path.name: path.read_bytes() for path in store.parent.iterdir()} == calm
            stores += 1
            said = start(*words, f"results=s{stores}", cwd=tmp_path).ended_well()
            assert "building" not in said
            shutil.rmtree(cache)
            break
    tally("`kill -9` while a token store is built", kills, f"that work; {stores} stores ended with the same bytes")


def test_rows_of_an_evaluation_killed_again_and_again_are_those_of_one_left_alone(world):
    words = ["eval", "results=evaluated", "wandb.mode=disabled", "device=cpu", "--lengths", "8,16,32,64,100"]
    start(*TRAIN, "results=evaluated", cwd=world).ended_well()
    run = only(world / "evaluated")
    shutil.rmtree(run / "losses")
    (run / "rows.jsonl").unlink()
    shutil.copytree(world / "evaluated", world / "unmeasured")
    seconds = timed(*words, cwd=world, after=": ppl")
    calm = Path(shutil.copytree(run, world / "calm-evaluated"))
    count, draw = times(2, 50), dice()
    kills = evaluations = between = 0
    while kills < count:
        evaluations += 1
        shutil.rmtree(world / "evaluated")
        shutil.copytree(world / "unmeasured", world / "evaluated")
        ended = False
        while not ended:
            command = start(*words, cwd=world)
            ended = not disturb(command, draw, ": ppl", 1.2 * seconds) if kills < count else command.wait() == 0
            assert "Traceback" not in command.said, command.said
            kills += not ended
            between += not ended and (run / "rows.jsonl").exists()
        assert_same_rows(run, calm)
        assert {path.name for path in run.glob("losses/*")} == {path.name for path in calm.glob("losses/*")}
    found = f"{evaluations} evaluations ended with the same rows, each once"
    tally(
        "`kill -9` while evaluating", kills, f"the row being measured; {found} ({between} kills were between two rows)"
    )
