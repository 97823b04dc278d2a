"""What posexp exports is, to transformers, the same model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.spans import token_losses

pytest.importorskip("transformers")

from support.checkpoints import own_losses, reference, slid, whole
from support.command import here, run_of, world

from posexp.config.commands import EvalCommand, TrainCommand
from posexp.config.components import options_of
from posexp.config.sections import AttentionGate, DataConfig, Mlp, ModelConfig, Precision, Source, TrainConfig
from posexp.data import tokenizer
from posexp.errors import Inapplicable
from posexp.hf.custom_code import config_with_code
from posexp.hf.export import config_of, safetensors_of, shared_keys, tensors_of, text_of
from posexp.hf.subject import Checkpoint
from posexp.model.base import BASE_WIDTH, Model
from posexp.model.decoder import build_decoder
from posexp.runs.run import Run
from posexp.schemes import Scheme
from posexp.transforms import build_transform as build_transform
from posexp.windows import build_window

CPU = torch.device("cpu")
V, LENGTH = 300, 64
IDS = np.random.default_rng(0).integers(0, V, 2 * 512 + 1)


def random_run(options: dict, window: dict | None, **sizes) -> tuple[TrainCommand, Model]:
    """A model that attends sharply, so that positions and windows show in its losses."""
    config = TrainCommand(
        scheme=options_of("scheme", "rope", options),
        window=window and options_of("window", "sliding", window),
        label="rope",
        model=ModelConfig(**{"d_model": 64, "n_layer": 2, "n_head": 2} | sizes),
        train=TrainConfig(length=LENGTH, batch_tokens=LENGTH),
    )
    model = build_decoder(config.model, V, config.scheme, LENGTH, seed=1, window_node=config.window).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
        elif weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.05 if "embedding" in name else 0.1)
    return config, model


def exported(folder: Path, config: TrainCommand, model: Model) -> Path:
    folder.mkdir()
    own = config_of(config, model)
    assert own is not None
    (folder / "config.json").write_text(text_of({**own, **shared_keys(Run(folder), config, model)}))
    (folder / "model.safetensors").write_bytes(safetensors_of(tensors_of(model)))
    (folder / "tokenizer.json").write_text(tokenizer.single_bytes().to_str())
    return folder


def losses(model, windows: np.ndarray) -> np.ndarray:
    return token_losses(model, IDS, windows, 4096, CPU, Precision.float32)


@pytest.mark.parametrize(
    ("kind", "options", "window", "sizes"),
    [
        ("LlamaForCausalLM", {}, None, {}),
        ("LlamaForCausalLM", {"base": 500.0}, None, {"n_head": 4, "d_model": BASE_WIDTH}),
        ("LlamaForCausalLM", {"layout": "interleaved"}, None, {"n_head": 4}),
        ("LlamaForCausalLM", {"layout": "interleaved"}, None, {"n_head": 4, "n_kv_head": 2}),
        ("MistralForCausalLM", {}, {"size": 24}, {}),
        ("MistralForCausalLM", {"layout": "interleaved", "base": 500.0}, {"size": None}, {}),
        ("Qwen3ForCausalLM", {"layout": "interleaved"}, None, {"qk_norm": True, "n_head": 4}),
        ("Qwen3ForCausalLM", {}, {"size": 24}, {"qk_norm": True}),
    ],
)
def test_transformers_gives_the_losses_of_the_run(tmp_path, kind, options, window, sizes):
    config, model = random_run(options, window, **sizes)
    own = reference(exported(tmp_path / "export", config, model))
    assert type(own).__name__ == kind
    for windows in (whole(LENGTH), whole(512, 1), slid(256, 64)):
        expected = losses(model, windows)
        assert expected.std() > 0.3
        assert np.abs(own_losses(own, IDS, windows) - expected).max() < 1e-5
    faint = 1e-4 * torch.randn(3, model.norm.weight.shape[0])  # where what a norm adds to the variance shows
    torch.testing.assert_close(own.model.norm(faint), model.norm(faint))
    _, other = random_run({**options, "base": 3.0}, window and {"size": 9}, **sizes)
    assert np.abs(losses(other, whole(LENGTH)) - losses(model, whole(LENGTH))).max() > 0.01, "positions show"


@pytest.mark.parametrize("name", ["pi", "ntk", "dynamic_ntk", "yarn", "llama3", "longrope", "base"])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_a_transform_of_the_export_is_that_of_the_run(tmp_path, name, layout):
    config, model = random_run({"layout": layout}, None)
    (tmp_path / "text").mkdir()
    for n in range(3):
        (tmp_path / "text" / f"{n}.txt").write_text("some text " * 50)
    subject = Checkpoint(
        EvalCommand(
            hf=str(exported(tmp_path / "export", config, model)),
            data=DataConfig(Source.files, paths=str(tmp_path / "text"), cache=str(tmp_path / "cache")),
            results=str(tmp_path / "results"),
        ),
        CPU,
    )
    for length in (256, 100):
        _, variant = subject.variants(EvalCommand(transform={name: options_of("transform", name, {})}))
        found = losses(subject.view(variant, length).model, whole(length))
        transform = build_transform(name, model.scheme.dims)
        trained = model.scheme
        model.scheme, _ = transform.apply(trained, model.window, length)
        expected = losses(model, whole(length))
        model.scheme = trained
        assert np.abs(found - expected).max() < 2e-5
        assert np.abs(found - losses(model, whole(length))).max() > 0.01


@pytest.fixture
def finished(tmp_path_factory, tmp_path) -> Path:
    return world(tmp_path_factory, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["rope", "learned"])
def test_an_exported_run_is_evaluated_to_the_rows_of_the_run(finished, scheme):
    run = run_of(finished, scheme)
    answer = here("export", f"{scheme}-s0-*", cwd=finished)
    assert answer.code == 0 and answer.out.strip() == f"results/default/{run.name}/export", answer.err
    data = ["data=files", "data.paths=text", "data.cache=cache", "wandb.mode=disabled", "eval.split=valid"]
    lengths = "8,16,64" if scheme == "rope" else "8,16"  # the table ends at 16
    words = ["eval", "--lengths", lengths, f"hf={answer.out.strip()}", *data]
    if scheme == "learned":
        refused = here(*words, cwd=finished).refusal()
        assert "its code comes with the checkpoint, from outside transformers: say trust=true" in refused
        words.append("trust=true")
    answer = here(*words, cwd=finished)
    assert answer.code == 0, answer.err
    (copied,) = (finished / "results" / "default").glob(f"hf-{run.name}-*")
    rows = {(row["protocol"], row["length"], row["control"]): row for row in rows_of(copied)}
    own = {(row["protocol"], row["length"], row["control"]): row for row in rows_of(run)}
    assert len(rows) >= 2 * len(lengths.split(",")) and rows.keys() <= own.keys()
    for key, row in rows.items():
        assert row["targets_hash"] == own[key]["targets_hash"] and row["status"] == "ok"
        assert row["nll"] == pytest.approx(own[key]["nll"], abs=1e-5)
        assert row["bits_per_byte"] == pytest.approx(own[key]["bits_per_byte"], abs=1e-5)
    again = here("export", run.name, cwd=finished)
    assert again.code == 0, "what is there is this run's"


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def test_a_run_can_be_exported_into_a_folder_of_its_own_name(finished):
    run = run_of(finished)
    answer = here("export", f"results/default/{run.name}", "folder=mine", cwd=finished)
    assert answer.code == 0 and answer.out == "mine\n"
    assert json.loads((finished / "mine" / "config.json").read_text())["posexp_run"] == run.name
    assert "export/" not in str(list(run.iterdir()))
    refused = here("export", run.name, "folder=text", cwd=finished).refusal()
    assert "folder=text holds something else already: choose another folder" in refused
    assert "is for one run, and 2 match" in here("export", "folder=mine", cwd=finished).refusal()


@pytest.mark.parametrize(
    ("options", "window", "sizes"),
    [
        ({"fraction": 0.5}, None, {}),
        ({}, "sinks", {}),
        ({}, None, {"mlp": Mlp.gelu}),
        ({}, None, {"attention_gate": AttentionGate.head}),
        ({}, None, {"short_conv": 4}),
    ],
)
def test_transformers_has_no_architecture_with_another_part(options, window, sizes):
    config, model = random_run(options, None, **sizes)
    if window:
        model.window = build_window(window, model.scheme.dims)
    assert config_of(config, model) is None


class Outside(Scheme):
    """A scheme of the working directory."""


def test_every_run_is_exported_but_one_with_code_from_outside(finished):
    answer = here("export", cwd=finished)
    assert answer.code == 0 and answer.out.count("export") == 2, answer.err
    config, model = random_run({}, None)
    config.scheme = {"_target_": f"{__name__}.Outside"}
    with pytest.raises(Inapplicable, match="Outside is code from outside posexp"):
        config_with_code(config, model)
