"""Sweeps whose cells last as long as a test needs, and what to see in their folders."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from support.command import TINY, here, write_texts

from posexp.runs.run import Run
from posexp.storage import jsonl

SLOW = '''
import time
from pathlib import Path

from posexp.schemes import Scheme


class Slow(Scheme):
    """No positions, and in training as many seconds a step as the file `pace` says."""

    def embed(self, x_BTD, pos_BT):
        if self.training:
            time.sleep(float(Path("pace").read_text()))
        return x_BTD
'''


def slow_world(folder: Path) -> list[str]:
    """Writes texts and a scheme whose steps last as long as `pace` says, 100 of them. Gives the words that train it."""
    pace(folder, 0)
    write_texts(folder / "text")
    (folder / "slowly.py").write_text(SLOW)
    (folder / "own" / "scheme").mkdir(parents=True)
    (folder / "own" / "scheme" / "slow.yaml").write_text("# slow\n_target_: slowly.Slow\n")
    sizes = ["train.tokens=25600", "train.checkpoint_every=40", "--lengths", "16"]
    return ["--config-dir", "own", "+scheme=slow", *TINY, *sizes]


def pace(folder: Path, seconds: float) -> None:
    """How long steps last from now on."""
    (folder / "pace").write_text(str(seconds))


def until(true: Callable[[], object], what: str, seconds: float = 90) -> None:
    for _ in range(int(seconds * 20)):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} seconds: {what}")


def steps_done(run: Run) -> list[int]:
    """Steps of the training rows, of all starts."""
    return [row["step"] for row in jsonl.read_lines(run.metrics, lambda line: None) if "loss" in row]


def starts(run: Run) -> int:
    return sum(row.get("status") == "running" for row in jsonl.read_lines(run.metrics, lambda line: None))


def weights(run: Run) -> str:
    """sha256 of the last checkpoint."""
    last = sorted((run.folder / "checkpoint").glob("*.json"))[-1]
    return json.loads(last.read_text())["sha256"]


def runs_of(folder: Path, group: str) -> list[Run]:
    return [Run(path.parent) for path in sorted((folder / "results" / group).glob("*/config.yaml"))]


def same_uninterrupted(run: Run, words: list[str], folder: Path) -> Run:
    """The run trained again in this process, from beginning to end, in the group `whole`."""
    whole = Run(folder / "results" / "whole" / run.name)
    whole.folder.mkdir(parents=True)
    for name in ("provenance.json", "tokenizer.json"):  # matrices are multiplied as in `run`: another way, other bits
        shutil.copy(run.folder / name, whole.folder)
    pace(folder, 0)
    answer = here("train", *words, f"seed={run.config().seed}", "group=whole", cwd=folder)
    assert answer.code == 0 and starts(whole) == 1, answer.err
    return whole
