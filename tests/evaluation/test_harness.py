"""lm-evaluation-harness reads a run of posexp, and finds the likelihoods that posexp finds.

Shape suffixes: T tokens, V vocabulary.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.spans import token_losses

pytest.importorskip("lm_eval")

from support.command import TINY, here, run_of, write_texts

from posexp.config.sections import Precision
from posexp.data.store import Tokens
from posexp.errors import Misuse
from posexp.evaluation.protocols import rolling
from posexp.hf.harness import Harness

pytestmark = pytest.mark.slow
LENGTH = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    write_texts(folder / "text")
    assert here("train", "+scheme=alibi", *TINY, "--lengths", "16", cwd=folder).code == 0
    return folder


@pytest.fixture(scope="module")
def model(world: Path) -> Harness:
    return Harness(str(run_of(world, "alibi")), length=LENGTH, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_the_device_that_the_harness_names_by_default_needs_no_gpu(world: Path):
    found = Harness(str(run_of(world, "alibi")), device="cuda:0")
    assert next(found.model.parameters()).device.type == "cpu"


def asked(*words: object) -> SimpleNamespace:
    return SimpleNamespace(args=words)


def texts(world: Path) -> list[str]:
    return [(world / "text" / f"{n:02}.txt").read_text()[:length] for n, length in ((3, 500), (7, 30), (9, 77))]


def rolling_losses(model: Harness, found: list[str]) -> list[float]:
    """The loss of each text by posexp's protocol."""
    sums = []
    for text in found:
        ids = np.array(model.tok_encode(text))
        tokens = Tokens(ids, np.array([0, len(ids)]), len(text), "", prefix=model.prefix)
        (of,) = rolling(tokens, [LENGTH], LENGTH, 1, None)
        assert of.tokens is not None
        losses = token_losses(model.model, of.tokens.ids, of.windows, 4096, torch.device("cpu"), Precision.float32)
        assert len(losses) == len(ids)
        sums.append(float(losses.sum(dtype=np.float64)))
    return sums


def test_rolling_likelihoods_are_those_of_the_protocol(model: Harness, world: Path) -> None:
    found = model.loglikelihood_rolling([asked(text) for text in texts(world)])
    assert found == pytest.approx([-loss for loss in rolling_losses(model, texts(world))], abs=1e-4)


def test_a_likelihood_is_that_of_the_tokens_behind_the_context(model: Harness) -> None:
    context, text = "the model reads", " tokens of long lines"
    (found, greedy) = model.loglikelihood([asked(context, text)], disable_tqdm=True)[0]
    ids, first = model.tok_encode(context + text), len(model.tok_encode(context))
    assert len(ids) <= LENGTH
    with torch.no_grad():
        logits_TV = model.model.logits(model.model(torch.tensor([ids])))[0].log_softmax(-1)
    wanted = sum(float(logits_TV[t - 1, ids[t]]) for t in range(first, len(ids)))
    assert found == pytest.approx(wanted, abs=1e-4) and not greedy


def test_greedy_text_is_the_likeliest_and_ends_where_it_is_told(model: Harness) -> None:
    (text,) = model.generate_until([asked("the model reads", {"until": [], "max_gen_toks": 6})])
    assert text and model.loglikelihood([asked("the model reads", text)], disable_tqdm=True)[0][1]
    (short,) = model.generate_until([asked("the model reads", {"until": [text[2:4]], "max_gen_toks": 6})])
    assert text.startswith(short) and text[2:4] not in short
    with pytest.raises(Misuse, match="do_sample=false"):
        model.generate_until([asked("the", {"do_sample": True})])


def test_what_is_longer_than_the_length_is_refused_and_a_long_context_is_cut(model: Harness) -> None:
    with pytest.raises(Misuse, match=f"more than length={LENGTH}"):
        model.loglikelihood([asked("the", " of" * 40)], disable_tqdm=True)
    long, short = model.loglikelihood([asked("in " * 60 + "the", " of"), asked("by the", " of")], disable_tqdm=True)
    assert long[0] != short[0]


def test_the_harness_gives_perplexity_and_accuracy_on_local_files(model: Harness, world: Path) -> None:
    words = texts(world)
    (world / "words.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in words))
    choices = [
        {"question": f"the {word}", "choices": [" model", " zzzzqqqq"], "label": 0} for word in ("of", "a", "in")
    ]
    (world / "choices.jsonl").write_text("".join(json.dumps(one) + "\n" for one in choices))
    common = "dataset_path: json\ndataset_kwargs: {{data_files: {{test: {}}}}}\ntest_split: test\n"
    (world / "words.yaml").write_text(
        "task: words\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]\n"
        + common.format(world / "words.jsonl")
    )
    (world / "choices.yaml").write_text(
        "task: choices\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: label\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
        + common.format(world / "choices.jsonl")
    )
    args = ["--model", "posexp", "--model_args", f"run={run_of(world, 'alibi')},length={LENGTH}", "--device", "cpu"]
    where = ["--tasks", "words,choices", "--include_path", str(world), "--output_path", str(world / "out")]
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(world / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "posexp.hf.harness_command", *args, *where],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (world / "out").rglob("results*.json")
    found = json.loads(path.read_text())["results"]
    bits = sum(rolling_losses(model, words)) / math.log(2) / sum(len(text.encode()) for text in words)
    assert found["words"]["bits_per_byte,none"] == pytest.approx(bits, abs=1e-4)
    assert found["choices"]["acc,none"] == 1.0
    print(done.stdout[-600:])
    wrong = subprocess.run(
        [sys.executable, "-m", "posexp.hf.harness_command", *args[:3], f"run={world}", *where],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert wrong.returncode and wrong.stderr.splitlines()[-1].startswith("posexp-lm-eval: no ")
