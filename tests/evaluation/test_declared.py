"""posexp check hf=…: a declaration that the loaded model ignores is found by its effect, whatever its config says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from support.checkpoints import checkpoint
from support.command import Answer, here

FACTORS = [1.0] * 8
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {"factor": 8.0, "original_max_position_embeddings": 64, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "short_factor": FACTORS,
        "long_factor": [4.0] * 8,
    },
}


@pytest.fixture(scope="module")
def declaring(tmp_path_factory):
    """The folder of a checkpoint whose config.json declares something else too; None removes a key."""
    root = tmp_path_factory.mktemp("declaring")

    def copied(name: str, **declared: Any) -> Path:
        folder = root / f"{name}-{len(list(root.iterdir()))}"
        shutil.copytree(checkpoint(root.parent, name), folder)
        config = json.loads((folder / "config.json").read_text()) | declared
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return folder

    return copied


def check(folder: Path) -> Answer:
    return here("check", f"hf={folder}", cwd=folder)


def of_line(answer: Answer, name: str) -> list[str]:
    (line,) = [line for line in answer.out.splitlines() if line.strip().startswith(name)]
    return line.split()


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling"])
def test_every_scaling_of_llama_acts_in_both_spellings(declaring, kind, spelling):
    given = SCALINGS[kind]
    values = {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **given}}
    if spelling == "rope_scaling":
        values = {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": {"type": kind, **given}}
    answer = check(declaring("llama", **values))
    assert answer.code == 0, answer
    *_, near, _, far, verdict = of_line(answer, f"scaling {kind}")
    assert verdict == "acts" and float(far) > 1e-3
    assert kind != "dynamic" or float(near) == 0, "which acts beyond the training length alone"
    assert of_line(answer, "rope_theta")[-1] == "acts"


def test_a_class_that_ignores_its_declared_scaling_is_found(declaring):
    """GPT-J sets its frequencies in code, and GPT-2 has none."""
    for name in ("gptj", "gpt2"):
        answer = check(declaring(name, rope_scaling={"type": "linear", "factor": 4.0}))
        assert "ignores 1 of 1 declarations: scaling linear, factor 4" in answer.refusal(1)
        assert of_line(answer, "scaling linear")[-1] == "ignored"


def test_a_window_that_is_ignored_is_found_and_one_that_acts_is_not(declaring):
    assert check(declaring("mistral-sliding")).code == 0
    assert check(declaring("gemma2")).code == 0, "in some blocks"
    answer = check(declaring("llama", sliding_window=24))
    assert "ignores 1 of 2 declarations: sliding_window 24" in answer.refusal(1)
    assert of_line(answer, "rope_theta")[-1] == "acts"


def test_a_checkpoint_that_declares_nothing_and_a_mixture_with_schemes_are_refused(declaring):
    assert "declares no rotary positions, scaling or window" in check(declaring("gpt2")).refusal(2)
    assert "cannot be combined" in here("check", "rope", "hf=x", cwd=declaring("gpt2")).refusal(2)
