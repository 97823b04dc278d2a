"""What only a GPU can show. Skipped without one."""

from pathlib import Path

import pytest
import torch

from posexp import windows
from posexp.attention import attention, kernel_path
from posexp.config import AttentionPath, ModelConfig, Precision, config_dir
from posexp.device import autocast, compiled_graphs
from posexp.model import build
from posexp.parts import read_options
from posexp.schemes import Dims
from posexp.schemes import build as build_scheme

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
SCHEMES = sorted((config_dir() / "scheme").glob("*.yaml"))


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_a_gpu_gives_the_losses_and_gradients_of_a_cpu(path: Path):
    config, tokens = ModelConfig(), torch.randint(0, 500, (2, 129))
    found = {}
    for device in ("cpu", "cuda"):
        model = build(config, 500, read_options(path), 128, seed=0).to(device).eval()  # which draws no positions
        loss = model.loss(tokens[:, :-1].to(device), tokens[:, 1:].to(device))
        loss.backward()
        found[device] = loss.item(), model.embedding.weight.grad.cpu()
    assert found["cpu"][0] == pytest.approx(found["cuda"][0], rel=1e-4)
    torch.testing.assert_close(found["cpu"][1], found["cuda"][1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_a_compiled_bfloat16_step_stays_near_float32(path: Path):
    model = build(ModelConfig(), 500, read_options(path), 128, seed=0).cuda()
    tokens = torch.randint(0, 500, (4, 129), device="cuda")
    exact = model.loss(tokens[:, :-1], tokens[:, 1:])
    with autocast(Precision.bfloat16, torch.device("cuda")):
        rounded = torch.compile(model.loss)(tokens[:, :-1], tokens[:, 1:])
    assert rounded.item() == pytest.approx(exact.item(), abs=0.02)


@pytest.mark.parametrize("window", ["full", "sliding", "bca"])
@pytest.mark.parametrize("scheme", ["none", "rope", "alibi", "t5", "kerple_log"])
@pytest.mark.parametrize("T", [128, 300, 2048])
def test_flex_equals_the_dense_path_and_so_do_its_gradients(scheme: str, window: str, T: int):
    dims = Dims(d_model=128, n_head=2, n_layer=1, train_length=256)
    part, seen = build_scheme(scheme, dims).cuda(), windows.build(window, dims)
    qkv = [torch.randn(2, 2, T, 64, device="cuda", requires_grad=True) for _ in range(3)]
    slope_BHTC = torch.randn(2, 2, T, 64, device="cuda")
    leaves = [*qkv, *part.parameters()]
    found = []
    for path in (AttentionPath.flex, AttentionPath.dense):
        out = attention(part, *qkv, torch.arange(T, device="cuda")[None], torch.zeros(2, T, 128).cuda(), seen, path)
        found.append([out, *torch.autograd.grad((out * slope_BHTC).sum(), leaves)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-3 * float(wanted.abs().max() + 1))


def test_a_bias_or_a_window_takes_the_flex_path_on_a_gpu():
    dims = Dims(d_model=128, n_head=2, n_layer=1, train_length=256)
    assert kernel_path(build_scheme("t5", dims).cuda(), dims, device=torch.device("cuda")) == "flex"
    assert kernel_path(build_scheme("alibi", dims), dims, device=torch.device("cuda")) == "flex"


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_a_step_on_a_gpu_is_compiled_once(path: Path):
    torch._dynamo.reset()
    model = build(ModelConfig(), 500, read_options(path), 128, seed=0).cuda().train()
    step, made = torch.compile(model.loss), []
    for index in range(4):
        model.scheme.progress(index / 100)
        tokens_BT = torch.randint(0, 500, (4, 129), device="cuda")
        with autocast(Precision.bfloat16, torch.device("cuda")):
            step(tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous()).backward()
        made.append(compiled_graphs())
    assert made[1:] == made[:1] * 3
