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
from torch.nn.attention.flex_attention import flex_attention

from posexp.attention import flex
from posexp.config.sections import AttentionGate, AttentionPath, Mlp, ModelConfig, config_dir
from posexp.dims import INIT_STD, Dims
from posexp.errors import Misuse
from posexp.model.decoder import Decoder, SelfAttention
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


@pytest.mark.parametrize(("name", "millions"), [("tiny", 1), ("small", 25), ("base", 126)])
def test_a_model_is_as_large_as_it_says(name: str, millions: int) -> None:
    assert f"{millions} M" in (config_dir() / "model" / f"{name}.yaml").read_text().splitlines()[0]
    assert parameters(stored(name)) == pytest.approx(millions * 1e6, rel=0.02)


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


GATES = [AttentionGate.head, AttentionGate.element]
OPTIONS = [*(replace(SIZE, attention_gate=gate) for gate in GATES), replace(SIZE, short_conv=4)]


@pytest.mark.parametrize("config", OPTIONS, ids=["head", "element", "short_conv"])
def test_an_option_of_attention_leaves_all_other_weights_as_they_are_without_it(config: ModelConfig) -> None:
    plain, model = decoder().state_dict(), decoder(config).state_dict()
    new = model.keys() - plain.keys()
    assert {name.split(".", 3)[-1] for name in new} <= {"gate.weight", "short_conv.weight"} and len(new) == SIZE.n_layer
    assert all(torch.equal(model[name], plain[name]) for name in plain)
    assert all(rms(model[name]) == pytest.approx(INIT_STD, rel=0.2) for name in new)


def attended(config: ModelConfig, scale: float = 1.0) -> tuple[SelfAttention, Tensor, Tensor]:
    """Attention in float64 with large weights, its input, and its output with causal weights that sum to 1."""
    part = decoder(config).double().blocks[0].attention
    assert isinstance(part, SelfAttention)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in part.parameters():
            weight.copy_(scale * torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    x_BTD = torch.randn(2, 9, 64, generator=draw, dtype=torch.float64)
    return part, x_BTD, part(x_BTD, mean_of_values)


def mean_of_values(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, x_BTD: Tensor) -> Tensor:
    return v_BHTC.cumsum(2) / torch.arange(1, v_BHTC.shape[2] + 1)[:, None]


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_multiplies_the_output_of_each_head_by_the_sigmoid_of_a_projection_of_its_input(
    gate: AttentionGate,
) -> None:
    part, x_BTD, got_BTD = attended(replace(SIZE, attention_gate=gate), scale=0.1)
    assert part.gate is not None
    mixed_BTD = mean_of_values(*part.project(x_BTD), x_BTD).transpose(1, 2).flatten(2)
    gate_BTG = 1 / (1 + (-x_BTD @ part.gate.weight.T).exp())
    gate_BTD = gate_BTG.repeat_interleave(64 // gate_BTG.shape[-1], dim=-1)
    torch.testing.assert_close(got_BTD, (mixed_BTD * gate_BTD) @ part.out.weight.T)
    last_BTD = part(x_BTD, lambda *qkv, x_BTD: mean_of_values(*qkv, x_BTD)[:, :, -2:])
    torch.testing.assert_close(last_BTD, got_BTD[:, -2:])
    with torch.no_grad():
        part.gate.weight.zero_()
    torch.testing.assert_close(part(x_BTD, mean_of_values), mixed_BTD @ part.out.weight.T / 2)


def test_a_short_convolution_adds_the_last_four_keys_and_values_to_each_and_leaves_queries_alone() -> None:
    part, x_BTD, _ = attended(replace(SIZE, short_conv=4))
    assert part.short_conv is not None
    q_BHTC, *got = part.project(x_BTD)
    q_BTD, *plain = (x_BTD @ part.qkv.weight.T).chunk(3, dim=-1)
    assert torch.equal(q_BHTC.transpose(1, 2).flatten(2), q_BTD)
    for got_BHTC, plain_BTD, weight_DW in zip(got, plain, part.short_conv.weight.split(64), strict=True):
        for t in range(9):
            wanted_BD = plain_BTD[:, t] + sum(weight_DW[:, j] * plain_BTD[:, t - j] for j in range(4) if j <= t)
            torch.testing.assert_close(got_BHTC[:, :, t].flatten(1), wanted_BD)
    with torch.no_grad():
        part.short_conv.weight.zero_()
    assert torch.equal(part.project(x_BTD)[1].transpose(1, 2).flatten(2), plain[0])


@pytest.mark.parametrize("scheme", ["none", "rope", "alibi", "t5", "fox", "stick_breaking"])
def test_gate_and_convolution_are_causal_and_the_same_on_every_path(scheme: str) -> None:
    model = decoder(replace(SIZE, attention_gate=AttentionGate.head, short_conv=4), scheme)
    with torch.no_grad():
        for name, weight in model.blocks.named_parameters():
            weight.normal_(std=0.5 if "conv" in name else 0.125)
        whole_BTD, last_BTD = model(TOKENS), model(TOKENS, last=3)
        changed = TOKENS.clone()
        changed[:, 7] = (TOKENS[:, 7] + 1) % VOCAB
        changed_BTD = model(changed)
        if not model.scheme.layer(0).acts("attend"):
            model.path = AttentionPath.dense
        torch.testing.assert_close(model(TOKENS), whole_BTD, rtol=0, atol=1e-4)
    torch.testing.assert_close(last_BTD, whole_BTD[:, -3:], rtol=0, atol=1e-4)
    assert float((changed_BTD - whole_BTD)[:, :7].abs().max()) < 1e-5
    assert float((changed_BTD - whole_BTD)[:, 7:].abs().max()) > 1e-2


def test_a_short_convolution_alone_shows_the_order_of_neighbours_and_of_no_others() -> None:
    """One layer without positions: the last token sees a sum over keys, in which near pairs now look different."""
    for taps, seen in ((0, False), (4, True)):
        model = decoder(replace(SIZE, n_layer=1, short_conv=taps)).double()
        with torch.no_grad():
            for weight in model.blocks.parameters():
                weight.normal_(std=0.5)
            swapped = TOKENS.clone()
            swapped[:, [2, 3]] = TOKENS[:, [3, 2]]
            moved = float((model(TOKENS)[:, -1] - model(swapped)[:, -1]).abs().max())
        assert (moved > 1e-3) is seen and (moved < 1e-9) is not seen


def test_a_short_convolution_has_four_taps_or_none() -> None:
    with pytest.raises(Misuse, match="0 or 4"):
        ModelConfig(short_conv=3)


GROUPED = replace(SIZE, n_kv_head=2, qk_norm=True, short_conv=4)
HEADS_OF_128 = ModelConfig(d_model=256, n_layer=2, n_head=2, n_kv_head=1)
SCHEMES = sorted(file.stem for file in (config_dir() / "scheme").glob("*.yaml"))


@pytest.mark.filterwarnings("ignore:.*torch.compile.*")
@pytest.mark.parametrize("config", [GROUPED, HEADS_OF_128], ids=["groups of 2", "heads of 128"])
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_shared_keys_and_values_are_those_of_a_model_that_repeats_their_weights_on_every_path(
    scheme: str, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "kernel", lambda: flex_attention)  # a GPU is needed for the compiled one
    model, wide = decoder(config, scheme).eval(), decoder(replace(config, n_kv_head=None), scheme).eval()
    for weight in model.blocks.parameters():
        weight.normal_(std=0.125)
    weights, C = model.state_dict(), config.d_model // config.n_head
    for name, weight in weights.items():
        if "qkv" in name or "conv" in name:
            first = config.d_model if "qkv" in name else 0
            parts = (
                weight[first:].view(2, config.n_kv_head, C, -1).repeat_interleave(config.n_head // config.n_kv_head, 1)
            )
            weights[name] = torch.cat((weight[:first], parts.reshape(2 * config.d_model, -1)))
    wide.load_state_dict(weights)
    drawn = torch.random.get_rng_state()

    def output(of: Decoder, path: AttentionPath) -> Tensor:
        of.path = path
        torch.random.set_rng_state(drawn)
        return of(TOKENS)

    wanted_BTD = output(wide, AttentionPath.auto)
    torch.testing.assert_close(output(model, AttentionPath.auto), wanted_BTD, rtol=0, atol=1e-5)
    layer = model.scheme.layer(0)
    for path in [] if layer.acts("attend") else [AttentionPath.dense] + [AttentionPath.flex] * (not layer.acts("bias")):
        torch.testing.assert_close(output(model, path), wanted_BTD, rtol=0, atol=1e-4)


def test_shared_keys_and_values_have_fewer_parameters_and_n_head_of_them_is_the_default() -> None:
    shared = replace(SIZE, n_kv_head=1)
    assert parameters(SIZE) - parameters(shared) == SIZE.n_layer * 2 * (64 - 16) * 64
    assert replace(SIZE, n_kv_head=4) == SIZE
    with pytest.raises(Misuse, match=r"divisible by .*n_kv_head=3"):
        replace(SIZE, n_kv_head=3)


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
