"""Mixers: the recurrences of their papers in chunks, states of constant size, and a decoder with them in attention's
place.

Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, K channels of a key, V of a value or of a
head, N rows of a state.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.command import TINY, here, run_of
from support.memory import Largest
from support.tiny_runs import corpus, tiny  # noqa: F401
from torch import Tensor

from posexp import mixers
from posexp.config.components import options_of
from posexp.config.sections import AttentionGate, AttentionPath, ModelConfig, config_dir
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.mixers import gated_deltanet, mamba2
from posexp.model.decoder import Decoder, SelfAttention, build_decoder
from posexp.runs.run import Run
from posexp.training.prepare import check_model

NAMES = sorted(path.stem for path in (config_dir() / "mixer").glob("*.yaml"))
DIMS = Dims(d_model=32, n_head=2, n_layer=4, train_length=16)
SIZE = ModelConfig(d_model=32, n_layer=4, n_head=2)
AUTHORS = json.loads((Path(__file__).parents[1] / "support" / "mixers.json").read_text())
VOCAB = 61
CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(name: str, **options: Any) -> mixers.Mixer:
    """A mixer in float64 whose weights are large enough for its states to matter."""
    torch.manual_seed(0)
    mixer = mixers.from_config(options_of("mixer", name, options), DIMS).double()
    with torch.no_grad():
        for key, weight in mixer.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
            elif "bias" in key or "log" in key:
                weight.add_(torch.randn(weight.shape) / 4)
    return mixer


def delta_by_steps(q: Tensor, k: Tensor, v: Tensor, log: Tensor, strength: Tensor) -> Tensor:
    """S <- a S, then what is stored under the key moves to the value by the strength: one token after another."""
    S, mixed = torch.zeros(*k.shape[:2], k.shape[-1], v.shape[-1], dtype=v.dtype), []
    for t in range(k.shape[2]):
        S = log[:, :, t, None, None].exp() * S
        wrong = v[:, :, t] - (k[:, :, t, None] @ S).squeeze(2)
        S = S + strength[:, :, t, None, None] * k[:, :, t, :, None] * wrong[:, :, None]
        mixed.append((q[:, :, t, None] @ S).squeeze(2) * k.shape[-1] ** -0.5)
    return torch.stack(mixed, dim=2)


def scan_by_steps(x: Tensor, b: Tensor, c: Tensor, log: Tensor) -> Tensor:
    S, mixed = torch.zeros(*x.shape[:2], b.shape[-1], x.shape[-1], dtype=x.dtype), []
    for t in range(x.shape[2]):
        S = log[:, :, t, None, None].exp() * S + b[:, None, t, :, None] * x[:, :, t, None]
        mixed.append((c[:, None, t, None] @ S).squeeze(2))
    return torch.stack(mixed, dim=2)


def operands(name: str, T: int) -> list[Tensor]:
    B, H, K, V = 2, 3, 4, 5
    log_BHT = -drawn(B, H, T, seed=1).abs()
    if name == "scan":
        return [drawn(B, H, T, V), drawn(B, T, K, seed=2), drawn(B, T, K, seed=3), log_BHT]
    k_BHTK = F.normalize(drawn(B, H, T, K, seed=2), dim=-1)
    return [drawn(B, H, T, K), k_BHTK, drawn(B, H, T, V, seed=3), log_BHT, drawn(B, H, T, seed=4).sigmoid()]


@pytest.mark.parametrize("T", [1, 63, 64, 150])
@pytest.mark.parametrize(
    ("chunked", "by_steps"), [(gated_deltanet.gated_delta_rule, delta_by_steps), (mamba2.scan, scan_by_steps)]
)
def test_chunks_equal_the_recurrence_step_by_step_and_so_do_their_gradients(chunked, by_steps, T: int) -> None:
    leaves = [part.requires_grad_() for part in operands(chunked.__name__, T)]
    got_BHTV, wanted_BHTV = chunked(*leaves)[0], by_steps(*leaves)
    slope_BHTV = drawn(*got_BHTV.shape, seed=9)
    torch.testing.assert_close(got_BHTV, wanted_BHTV, rtol=0, atol=1e-11)
    got, wanted = (torch.autograd.grad((out * slope_BHTV).sum(), leaves) for out in (got_BHTV, wanted_BHTV))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", [case for case in AUTHORS if "rule" in case], ids=lambda case: case["rule"])
def test_the_recurrences_give_their_authors_numbers(case: dict[str, Any]) -> None:
    given = {name: torch.tensor(value)[None] for name, value in case["inputs"].items()}
    shared = () if case["rule"] == "gated_delta_rule" else ("b", "c")
    inputs = [x if name in shared else x.transpose(1, 2) for name, x in given.items()]
    rule = gated_deltanet.gated_delta_rule if case["rule"] == "gated_delta_rule" else mamba2.scan
    got_1HTV, _ = rule(*inputs)
    torch.testing.assert_close(got_1HTV[0].transpose(0, 1), torch.tensor(case["wanted"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in AUTHORS if "mixer" in case], ids=lambda case: case["mixer"])
def test_the_layers_give_other_libraries_numbers(case: dict[str, Any]) -> None:
    x_TD = torch.tensor(case["x"])
    dims = Dims(d_model=x_TD.shape[1], n_head=case["heads"], n_layer=1, train_length=64)
    mixer = mixers.from_config(options_of("mixer", case["mixer"], {}), dims)
    mixer.load_state_dict({name: torch.tensor(weight) for name, weight in case["weights"].items()})
    got_TD = mixer(x_TD[None])[0]
    torch.testing.assert_close(got_TD, torch.tensor(case["wanted"]), rtol=1e-4, atol=1e-4)


def test_an_lstm_is_the_one_of_its_formula() -> None:
    mixer, x_BTD = built("lstm", cells=5), drawn(2, 7, 32)
    lstm, c_BH, h_BH, mixed = mixer.lstm, torch.zeros(2, 5).double(), torch.zeros(2, 5).double(), []
    for t in range(7):
        gates = F.linear(x_BTD[:, t], lstm.weight_ih_l0, lstm.bias_ih_l0)
        i, f, g, o = (gates + F.linear(h_BH, lstm.weight_hh_l0, lstm.bias_hh_l0)).chunk(4, dim=-1)
        c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
        h_BH = o.sigmoid() * c_BH.tanh()
        mixed.append(h_BH)
    torch.testing.assert_close(mixer(x_BTD), mixer.out(torch.stack(mixed, dim=1)), rtol=0, atol=1e-12)
    plain = mixers.from_config(options_of("mixer", "lstm", {"cells": 5}), DIMS).lstm
    assert (plain.bias_ih_l0 + plain.bias_hh_l0).tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10  # open forget gates


@pytest.mark.parametrize("name", NAMES)
def test_a_mixer_is_causal_and_reads_far_back_and_pieces_give_what_the_whole_gives(name: str, monkeypatch) -> None:
    mixer, x_BTD = built(name), drawn(2, 150, 32)
    changed_BTD = x_BTD.clone()
    changed_BTD[:, 70] += 1
    whole_BTD = mixer(x_BTD)
    moved_T = (mixer(changed_BTD) - whole_BTD).detach().abs().amax((0, 2))
    assert float(moved_T[:70].max()) == 0 and float(moved_T[80:90].max()) > 1e-6, "more than the convolution reads"
    for segment in (1, 2, 37, 64, 1000):
        monkeypatch.setattr(mixers, "SEGMENT", segment)
        with torch.no_grad():
            torch.testing.assert_close(mixer(x_BTD), whole_BTD, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_of_an_evaluation_does_not_grow_with_the_length(name: str) -> None:
    """But for input and output: the second, four times as long, is the largest piece of memory by far."""
    mixer, largest = built(name).float(), []
    for T in (4096, 16384):
        x_BTD = torch.zeros(1, T, 32)
        with torch.no_grad(), Largest() as seen:
            mixer.forward(x_BTD)
        largest.append((seen.bytes, x_BTD.numel() * 4))
    segment = 4 * mixers.SEGMENT * (3 * 32 + 36)  # bytes of the widest projection of a segment
    assert all(most <= max(segment, output) for most, output in largest), largest
    assert largest[1][0] == largest[1][1]


@pytest.mark.parametrize("name", NAMES)
def test_states_are_exact_under_autocast(name: str) -> None:
    mixer, x_BTD = built(name).float(), drawn(1, 200, 32).float()
    with torch.no_grad():
        exact_BTD = mixer(x_BTD)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half_BTD, state = mixer.mix(x_BTD, None)
    assert state[-1].dtype == torch.float32
    off = float((half_BTD.float() - exact_BTD)[:, 100:].square().mean().sqrt() / exact_BTD.square().mean().sqrt())
    assert off < 0.05, f"off by {off:.2g} of the output"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["tiny", "small", "base"])
def test_a_mixer_has_about_as_many_parameters_as_attention(name: str, model: str) -> None:
    sizes = {"tiny": (128, 4), "small": (512, 8), "base": (1024, 16)}[model]
    with torch.device("meta"):
        mixer = mixers.from_config(options_of("mixer", name, {}), Dims(*sizes, n_layer=1, train_length=128))
    count = sum(weight.numel() for weight in mixer.parameters())
    assert count == pytest.approx(4 * sizes[0] ** 2, rel=0.035)
    if model == "tiny":
        assert f"{count:,}" in (config_dir() / "mixer" / f"{name}.yaml").read_text()


def decoder(name: str | None, scheme: str = "none", config: ModelConfig = SIZE, **options: Any) -> Decoder:
    node = None if name is None else options_of("mixer", name, options)
    return build_decoder(config, VOCAB, options_of("scheme", scheme, {}), 16, 0, mixer_node=node)


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_with_a_mixer_learns_and_shares_all_other_weights_with_attention(name: str) -> None:
    plain, model = decoder(None).state_dict(), decoder(name)
    kept = {key: weight for key, weight in model.state_dict().items() if ".mixer." not in key}
    assert kept.keys() == {key for key in plain if ".attention." not in key}
    assert all(torch.equal(weight, plain[key]) for key, weight in kept.items())
    assert not model.attends and model.kernel_path(CPU) == model.mixer.path
    tokens_BT = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))
    model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model(tokens_BT, last=3), model(tokens_BT)[:, -3:])


def test_scheme_and_window_serve_the_blocks_with_attention_alone() -> None:
    """And a scheme has weights for these blocks only, so that each weight has a gradient."""
    model = decoder("gated_deltanet", "fox", replace(SIZE, attention_gate=AttentionGate.head), attention_every=2)
    kinds = [isinstance(getattr(block, "attention", None), SelfAttention) for block in model.blocks]
    assert kinds == [False, True, False, True] and model.attends and model.scheme.dims.n_layer == 2
    assert model.kernel_path(CPU) == "gated delta rule in chunks, scheme"
    tokens_BT = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))
    model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scheme": options_of("scheme", "rope", {})}, "choose +scheme=none"),
        ({"window": options_of("window", "sliding", {})}, "omit window"),
        ({"model": replace(SIZE, short_conv=4)}, "omit model.short_conv"),
        ({"mixer": options_of("mixer", "lstm", {"attention_every": 5})}, "at most model.n_layer=4"),
        ({"mixer": options_of("mixer", "lstm", {"attention_every": -1})}, "at least 0"),
        ({"mixer": options_of("mixer", "mamba2", {"heads": 5})}, "mixer.heads=5"),
        ({"mixer": options_of("mixer", "lstm", {"cells": 0})}, "mixer.cells=0"),
    ],
)
def test_options_without_effect_or_sense_are_refused(corpus: Path, tmp_path: Path, changes, says) -> None:  # noqa: F811
    fine = {"scheme": options_of("scheme", "none", {}), "mixer": options_of("mixer", "lstm", {}), "model": SIZE}
    check_model(replace(tiny(corpus, tmp_path), **fine), CPU)
    learned = options_of("scheme", "learned", {})  # positions that are added reach any layer
    check_model(replace(tiny(corpus, tmp_path), **fine | {"scheme": learned}), CPU)
    with pytest.raises(Misuse, match=says.replace("+", r"\+")):
        check_model(replace(tiny(corpus, tmp_path), **fine | changes), CPU)


def test_a_run_without_a_mixer_keeps_its_name(corpus: Path, tmp_path: Path) -> None:  # noqa: F811
    config = tiny(corpus, tmp_path)
    assert config.mixer is None and Run.of(config).name == Run.of(replace(config, mixer=None)).name
    other = replace(config, mixer=options_of("mixer", "lstm", {}))
    assert Run.of(other).name != Run.of(config).name
    assert config.train.attention is AttentionPath.auto


@pytest.mark.slow
def test_a_run_is_trained_measured_inspected_and_exported(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for n in range(12):
        (tmp_path / "text" / f"{n}.txt").write_text(f"some words of text number {n} that go on and on " * 60)
    answer = here("train", "+scheme=none", "mixer=mamba2", *TINY, "--lengths", "16,64", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "no control with attention cut: no block has attention" in answer.err
    run = run_of(tmp_path, "none-mamba2")
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    assert {row["window"] for row in rows} == {"none"} and {row["kernel_path"] for row in rows} == {mamba2.Mamba2.path}
    assert {row["control"] for row in rows} == {"", "shuffled"} and {row["status"] for row in rows} == {"ok"}
    assert "Mamba2" in json.loads((run / "provenance.json").read_text())["mixer"]
    assert here("export", "none-mamba2-*", cwd=tmp_path).code == 0 and (run / "export" / "modeling_posexp.py").is_file()
    answer = here("inspect", "none-mamba2-*", cwd=tmp_path)
    assert answer.code == 0 and "no attention to draw" in answer.err, answer.err
    refused = here("eval", "--lengths", "16", "window=sliding", "wandb.mode=disabled", cwd=tmp_path).refusal()
    assert "no block of the run has attention" in refused
    sizes = [word for word in TINY if "n_layer" not in word] + ["model.n_layer=2"]
    hybrid = ["+scheme=rope", "window=sliding", "mixer=lstm", "mixer.attention_every=2"]
    answer = here("train", *hybrid, *sizes, "--lengths", "16,64", cwd=tmp_path)
    assert answer.code == 0, answer.err
    answer = here("inspect", "rope-sliding-lstm-*", cwd=tmp_path)
    assert answer.code == 0 and "attention.png" in answer.out, answer.err
