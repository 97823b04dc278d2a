"""A run of a second or two, and what it left."""

import hashlib
import random
from pathlib import Path

import pytest

from posexp.config.commands import TrainCommand
from posexp.config.sections import (
    DataConfig,
    Device,
    EvalConfig,
    ModelConfig,
    Source,
    TrainConfig,
    WandbConfig,
    WandbMode,
)
from posexp.runs import checkpoint
from posexp.runs.run import Run
from posexp.storage import jsonl

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "more", "dog", "run", "over", "every", "hill"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve documents of words that follow one another by chance."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    for number in range(12):
        (folder / f"{number}.txt").write_text(" ".join(draw.choice(WORDS) for _ in range(800)))
    return folder


def tiny(corpus: Path, tmp_path: Path, scheme: str = "rope", **changes) -> TrainCommand:
    """A run of a second or two; `changes` go to its training section."""
    nodes = {
        "rope": {"_target_": "posexp.schemes.rope.Rope", "base": 10000.0, "fraction": 1.0},
        "alibi": {"_target_": "posexp.schemes.alibi.Alibi"},
        "learned": {"_target_": "posexp.schemes.learned.Learned", "past_end": "error"},
    }
    return TrainCommand(
        scheme=nodes[scheme],
        label=scheme,
        model=ModelConfig(d_model=32, n_layer=2, n_head=2),
        data=DataConfig(source=Source.files, paths=str(corpus), vocab_size=300, cache=str(tmp_path / "cache")),
        train=TrainConfig(**{"length": 16, "tokens": 64 * 60, "batch_tokens": 64, "checkpoint_every": 7} | changes),
        eval=EvalConfig(lengths=[16, 32], targets=64),
        wandb=WandbConfig(mode=WandbMode.disabled),
        results=str(tmp_path / "results"),
        device=Device.cpu,
    )


def losses(run: Run) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in jsonl.read_lines(run.metrics, print) if "loss" in row]


def weights_digest(run: Run) -> str:
    """sha256 of the final checkpoint's tensor file."""
    step = checkpoint.steps(run.folder / "checkpoint")[0]
    return hashlib.sha256((run.folder / "checkpoint" / f"step-{step:08d}.safetensors").read_bytes()).hexdigest()
