"""What a run needs is opened once: store, model and config.yaml are counted, and so are the imports of commands."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import TINY, here, run_of, world, write_texts
from support.tiny_runs import tiny

from posexp.config import components, stored_yaml
from posexp.config.commands import EvalCommand
from posexp.config.sections import config_dir
from posexp.config.values import plain_value
from posexp.data import corpus as corpora
from posexp.evaluation.evaluate import evaluate_run
from posexp.model import decoder
from posexp.runs.experiment import Experiment
from posexp.runs.run import Run
from posexp.storage import atomic, jsonl
from posexp.training.train import train


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """The calls of what opens a model, a hash of the token store, config.yaml, and the hash of a corpus."""
    counted: Counter = Counter()

    def count(name: str, module: object, function: str) -> None:
        original = getattr(module, function)

        def counting(*words: object, **options: object) -> object:
            counted[name] += name != "store" or "tokens" in Path(str(words[0])).parts
            return original(*words, **options)

        monkeypatch.setattr(module, function, counting)

    count("model", decoder, "build_decoder")
    count("store", atomic, "sha256")
    count("config", stored_yaml, "yaml_of")
    count("corpus", corpora, "corpus_content")
    yield counted


@pytest.mark.slow
def test_training_on_an_existing_store_opens_everything_once(corpus: Path, tmp_path: Path, calls: Counter) -> None:
    train(tiny(corpus, tmp_path, tokens=64))
    assert calls["store"] > 0, "when it is built"
    for changes in ({"lr": 0.1}, {"lr": 0.1}, {"lr": 0.1, "tokens": 128}):  # a new run, a finished one, another
        calls.clear()
        train(tiny(corpus, tmp_path, **{"tokens": 64} | changes))
        print(dict(calls))
        assert calls["model"] <= 1 and calls["store"] == 0 and calls["config"] <= 1 and calls["corpus"] == 1, calls


@pytest.mark.slow
def test_a_sweep_reads_its_corpus_once(tmp_path: Path, calls: Counter) -> None:
    write_texts(tmp_path / "text")
    words = ["train", "-m", "+scheme=rope,alibi,none", *TINY, "seed=0,1", "train.lr=0.1,0.2", "train.length=8,15"]
    assert "cell " in here(*words, cwd=tmp_path).refusal()  # 15 does not divide the tokens of a step
    calls.clear()
    assert "train.accumulate" in here(*words[:-1], "train.accumulate=1,3", cwd=tmp_path).refusal()
    assert calls["corpus"] == 1 and calls["store"] == 0, calls


def measured(run: Run) -> tuple[list[dict], dict[str, list[np.ndarray]]]:
    """The rows without their speed, and the arrays of every file of losses."""
    rows = jsonl.read_lines(run.rows, pytest.fail)
    files = {path.name: np.load(path) for path in run.folder.glob("losses/*.npz")}
    arrays = {name: [file[key] for key in sorted(file.files)] for name, file in files.items()}
    return [row | {"tokens_per_second": None, "peak_memory": None} for row in rows], arrays


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["rope", "learned"])
def test_evaluation_after_training_equals_that_of_the_stored_checkpoint(
    corpus: Path, tmp_path: Path, scheme: str
) -> None:
    config = tiny(corpus, tmp_path, scheme, tokens=64 * 20)
    run = train(config)
    rows, arrays = measured(run)
    run.rows.unlink()
    for path in run.folder.glob("losses/*"):
        path.unlink()
    evaluate_run(Experiment(run, torch.device("cpu")), EvalCommand(wandb=config.wandb))
    again, arrays_again = measured(run)
    assert rows == again and arrays and arrays.keys() == arrays_again.keys()
    for name, found in arrays.items():
        assert all(np.array_equal(one, other) for one, other in zip(found, arrays_again[name], strict=True)), name


@pytest.mark.parametrize("kind", ["scheme", "window", "temperature", "mixer"])
def test_the_defaults_in_the_source_are_those_of_the_constructor(kind: str) -> None:
    for path in (config_dir() / kind).glob("*.yaml"):
        target = components.read_options(path)["_target_"]
        options = components.parameters_of(components.class_of(kind, object, {"_target_": target}))
        wanted = {p.name: plain_value(p.default) for p in options if p.default is not p.empty}
        assert components.defaults_of(target) == wanted, target


IMPORTS = """
import sys
from pathlib import Path
from posexp.cli.main import main
from posexp.runs.run import Run

run = Run(Path(sys.argv.pop(1)))
assert Run.of(run.config()).name == run.name
for words in (["runs"], ["runs", "--verify"]):
    sys.argv = ["posexp", *words]
    assert main() == 0
print([name for name in sys.modules if name == "torch" or name.startswith("posexp.schemes")])
"""


def test_naming_listing_and_checking_runs_import_neither_torch_nor_a_scheme(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    finished = world(tmp_path_factory, tmp_path)
    command = [sys.executable, "-c", IMPORTS, str(run_of(finished))]
    done = subprocess.run(command, cwd=finished, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
