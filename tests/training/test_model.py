"""The decoder: as large as it says, switched by its knobs, and at a sensible scale before the first step.

Shape suffixes: B batch, T tokens, D width of the residual stream, V vocabulary.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from posexp.config.sections import Mlp, ModelConfig, config_dir
from posexp.dims import INIT_STD, Dims
from posexp.errors import Misuse
from posexp.model.decoder import Decoder
from posexp.schemes import Scheme
from posexp.schemes import build_scheme as build_scheme

SIZE = ModelConfig(d_model=64, n_layer=3, n_head=4)
VOCAB = 101
TOKENS = torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))


def decoder(config: ModelConfig = SIZE, scheme: str | None = None, vocab: int = VOCAB) -> Decoder:
    dims = Dims(config.d_model, config.n_head, config.n_layer, 64)
    return Decoder(config, vocab, build_scheme(scheme, dims) if scheme else Scheme(dims), seed=0)


def parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return decoder(config).parameter_counts()["decoder"]


def stored(name: str) -> ModelConfig:
    loaded: Any = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(config_dir() / "model" / f"{name}.yaml"))
    )
    return loaded


def rms(x: Tensor) -> float:
    return float(x.detach().float().square().mean().sqrt())


@pytest.mark.parametrize(("name", "millions"), [("tiny", 1), ("small", 25), ("base", 124)])
def test_a_model_is_as_large_as_it_says(name: str, millions: int) -> None:
    assert f"{millions} M" in (config_dir() / "model" / f"{name}.yaml").read_text().splitlines()[0]
    assert parameters(stored(name)) == pytest.approx(millions * 1e6, rel=0.1)


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_both_mlps_have_as_many_parameters(name: str) -> None:
    swiglu, gelu = (parameters(replace(stored(name), mlp=mlp)) for mlp in (Mlp.swiglu, Mlp.gelu))
    assert swiglu == pytest.approx(gelu, rel=0.03)


def test_parameters_are_counted_by_their_place() -> None:
    model = decoder(scheme="learned")
    counts = model.parameter_counts()
    assert counts["total"] == sum(weight.numel() for weight in model.parameters())
    assert counts["embedding"] == VOCAB * 64
    assert counts["scheme"] == 64 * 64
    assert counts["total"] == counts["embedding"] + counts["scheme"] + counts["decoder"]


def test_output_and_input_embeddings_are_one_matrix() -> None:
    model = decoder()
    assert [weight.shape for weight in model.parameters()].count((VOCAB, 64)) == 1
    hidden_BTD = torch.randn(1, 2, 64)
    wanted_BTV = hidden_BTD @ model.embedding.weight.T * (128 / 64)  # muP's 1/width, relative to model=tiny
    torch.testing.assert_close(model.logits(hidden_BTD), wanted_BTV)


@pytest.mark.parametrize("mlp", list(Mlp))
def test_both_mlps_are_used(mlp: Mlp) -> None:
    model = decoder(replace(SIZE, mlp=mlp))
    model.loss(TOKENS[:, :-1], TOKENS[:, 1:]).backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in model.parameters())


def outputs_before_and_after_growing_queries(config: ModelConfig) -> tuple[Tensor, Tensor]:
    model = decoder(config)
    with torch.no_grad():
        before_BTD = model(TOKENS)
        for block in model.blocks:
            block.attention.qkv.weight[: 2 * config.d_model] *= 100  # queries and keys, not values
        return before_BTD, model(TOKENS)


def test_qk_norm_takes_away_the_size_of_queries_and_keys() -> None:
    torch.testing.assert_close(
        *outputs_before_and_after_growing_queries(replace(SIZE, qk_norm=True)), rtol=1e-3, atol=1e-3
    )
    before_BTD, after_BTD = outputs_before_and_after_growing_queries(SIZE)
    assert float((before_BTD - after_BTD).abs().max()) > 0.01


def test_dropout_is_for_training_only() -> None:
    dropping, plain = decoder(replace(SIZE, dropout=0.5)), decoder()
    with torch.no_grad():
        assert not torch.equal(dropping(TOKENS), dropping(TOKENS))
        assert torch.equal(plain(TOKENS), plain(TOKENS))
        assert torch.equal(dropping.eval()(TOKENS), plain.eval()(TOKENS))


def test_branches_that_write_to_the_residual_stream_start_small() -> None:
    for name, weight in decoder().blocks.named_parameters():
        if weight.ndim == 2:
            wanted = INIT_STD / math.sqrt(2 * SIZE.n_layer) if name.endswith("out.weight") else INIT_STD
            assert rms(weight) == pytest.approx(wanted, rel=0.05), name
        else:
            assert bool((weight == 1).all()), name


def residual_stream(scheme: str | None, config: ModelConfig = SIZE) -> Tensor:
    """What the first block is given, [B, T, D]."""
    model = decoder(config, scheme)
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda block, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model(torch.randint(VOCAB, (4, 64), generator=torch.Generator().manual_seed(1)))
    return seen[0]


@pytest.mark.parametrize("d_model", [64, 256])
def test_tokens_enter_at_unit_scale_and_are_not_drowned_by_positions(d_model: int) -> None:
    config = replace(SIZE, d_model=d_model)
    tokens_BTD = residual_stream(None, config)
    assert rms(tokens_BTD) == pytest.approx(1, rel=0.05)
    assert rms(residual_stream("sinusoidal", config) - tokens_BTD) == pytest.approx(math.sqrt(0.5), rel=0.01)
    assert rms(residual_stream("learned", config) - tokens_BTD) == pytest.approx(1, rel=0.05)
    for scheme in ("none", "alibi", "rope", "xpos"):
        assert torch.equal(residual_stream(scheme, config), tokens_BTD)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_an_untrained_model_is_little_worse_than_a_guess(size: str) -> None:
    model = decoder(stored(size), vocab=2048)
    tokens_BT = torch.randint(2048, (2, 129), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = float(model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]))
    assert loss == pytest.approx(math.log(2048), abs=0.2)


def test_equal_logits_cost_log_v() -> None:
    model = decoder()
    with torch.no_grad():
        model.embedding.weight.zero_()
        loss = float(model.loss(TOKENS[:, :-1], TOKENS[:, 1:]))
    assert loss == pytest.approx(math.log(VOCAB))


def test_a_loss_is_the_mean_of_minus_log_probabilities() -> None:
    model = decoder()
    with torch.no_grad():
        loss = float(model.loss(TOKENS[:, :-1], TOKENS[:, 1:]))
        chance_BTV = model.logits(model(TOKENS[:, :-1])).double().softmax(-1)
    wanted = -chance_BTV.gather(2, TOKENS[:, 1:, None]).log().mean()
    assert loss == pytest.approx(float(wanted), rel=1e-6)


def test_logits_are_float32_under_autocast() -> None:
    model = decoder()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.logits(model(TOKENS)).dtype == torch.float32


def test_heads_divide_the_width() -> None:
    with pytest.raises(Misuse, match="n_head"):
        ModelConfig(d_model=64, n_head=5)
