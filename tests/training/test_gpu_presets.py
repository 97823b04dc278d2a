"""Presets for a GPU: heads of 128 channels, and 131,072 tokens in one pass. What they need is counted without one."""

import pytest
import torch
from support.memory import kept_for_gradients

from posexp.attention import kernel_path
from posexp.config.commands import TrainCommand
from posexp.config.components import options_of, read_options
from posexp.config.compose import compose
from posexp.config.overrides import settle
from posexp.config.sections import ModelConfig, config_dir
from posexp.dims import Dims
from posexp.model.decoder import build_decoder
from posexp.ops.cross_entropy import rows_at_a_time

SCHEMES = sorted((config_dir() / "scheme").glob("*.yaml"))
GPU = torch.device("cuda")
GIB = 1 << 30


def composed(*words: str) -> TrainCommand:
    found = compose("train", settle("train", ["+scheme=rope", *words]))
    assert isinstance(found, TrainCommand)
    return found


@pytest.mark.parametrize("name", ["small", "base"])
def test_a_preset_with_heads_of_128_has_the_parameters_of_the_other(name: str) -> None:
    counts = []
    for preset, head_dim in ((name, 64), (f"{name}_h128", 128)):
        model = composed(f"model={preset}").model
        assert model.d_model // model.n_head == head_dim
        with torch.device("meta"):
            counts.append(build_decoder(model, 64, options_of("scheme", "rope", {}), 128, 0).parameter_counts())
    assert counts[0] == counts[1]


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_every_scheme_has_heads_of_128_channels_and_a_path_on_a_gpu(path) -> None:
    config = ModelConfig(d_model=256, n_layer=2, n_head=2)
    model = build_decoder(config, 64, read_options(path), 128, 0)
    assert model.scheme.dims == Dims(256, 2, 2, 128) and model.scheme.dims.head_dim == 128
    assert kernel_path(model.scheme, model.scheme.dims, device=GPU)


def test_a_step_of_the_preset_is_one_pass_with_little_memory_for_the_loss() -> None:
    config = composed("+experiment=gpu", "data.paths=books.jsonl", "data=files")
    train = config.train
    assert (train.batch_tokens, train.accumulate) == (131_072, 1)
    for vocab_size in (4096, 50_304, 262_144):
        rows = min(train.batch_tokens, rows_at_a_time(vocab_size, GPU))
        assert 2 * 4 * rows * vocab_size <= 2 * GIB, "logits and their logarithms of probabilities, in float32"


def kept(n_layer: int, T: int) -> int:
    """The bytes that are kept for the gradients of T tokens, with a scheme that rotates."""
    config, node = ModelConfig(d_model=512, n_layer=n_layer, n_head=4), options_of("scheme", "rope", {})
    model, tokens_BT = build_decoder(config, 64, node, T, 0), torch.zeros(1, T, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16), kept_for_gradients() as total:
        model.loss(tokens_BT, tokens_BT)
    return total[0]


def test_activations_of_a_pass_fit_into_a_gpu_of_80_gb() -> None:
    """Counted on a CPU: a layer keeps a multiple of the width for each token, which is that of all widths."""
    config, T = composed("model=base_h128").model, 128
    layer = [(kept(n_layer, 2 * T) - kept(n_layer, T)) / T for n_layer in (1, 3)]
    factor = (layer[1] - layer[0]) / 2 / 512
    print(f"{factor:.1f} bytes for each token, layer and channel")  # pytest -rP shows it
    assert 131_072 * config.n_layer * config.d_model * factor < 64e9  # and 6 GB of weights, optimizer and loss
    assert factor == pytest.approx(44, abs=1)  # the figure of docs/gpu.md
