"""What only a GPU can show. Skipped without one."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from support.command import TINY, posexp, write_texts

from posexp import windows
from posexp.attention import attention, kernel_path
from posexp.config.commands import TrainCommand
from posexp.config.components import options_of, read_options
from posexp.config.sections import (
    AttentionPath,
    ModelConfig,
    Optimizer,
    Precision,
    Strategy,
    TrainConfig,
    TrainerConfig,
    config_dir,
)
from posexp.dims import Dims
from posexp.jobs.ranks import Place
from posexp.model import flash
from posexp.model.decoder import build_decoder
from posexp.model.device import autocast, compiled_graphs
from posexp.runs import checkpoint
from posexp.runs.run import Run
from posexp.schemes import build_scheme as build_scheme
from posexp.storage import jsonl
from posexp.training import distributed, optim

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
        model = (
            build_decoder(config, 500, read_options(path), 128, seed=0).to(device).eval()
        )  # which draws no positions
        loss = model.loss(tokens[:, :-1].to(device), tokens[:, 1:].to(device))
        loss.backward()
        found[device] = loss.item(), model.embedding.weight.grad.cpu()
    assert found["cpu"][0] == pytest.approx(found["cuda"][0], rel=1e-4)
    torch.testing.assert_close(found["cpu"][1], found["cuda"][1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_a_compiled_bfloat16_step_stays_near_float32(path: Path):
    model = build_decoder(ModelConfig(), 500, read_options(path), 128, seed=0).cuda()
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
    part, seen = build_scheme(scheme, dims).cuda(), windows.build_window(window, dims)
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
    model = build_decoder(ModelConfig(), 500, read_options(path), 128, seed=0).cuda().train()
    step, made = torch.compile(model.loss), []
    for index in range(4):
        model.scheme.progress(index / 100)
        tokens_BT = torch.randint(0, 500, (4, 129), device="cuda")
        with autocast(Precision.bfloat16, torch.device("cuda")):
            step(tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous()).backward()
        made.append(compiled_graphs())
    assert made[1:] == made[:1] * 3


def test_a_step_of_muon_on_a_gpu_is_that_of_a_cpu():
    found, tokens = [], torch.randint(0, 500, (2, 129))
    for device in ("cpu", "cuda"):
        model = build_decoder(ModelConfig(), 500, options_of("scheme", "t5", {}), 128, seed=0).to(device)
        optimizer = optim.build_optimizer(model, TrainConfig(optimizer=Optimizer.muon))
        model.loss(tokens[:, :-1].to(device), tokens[:, 1:].to(device)).backward()
        optimizer.step()
        found.append({name: weight.detach().cpu() for name, weight in model.named_parameters()})
    start = dict(build_decoder(ModelConfig(), 500, options_of("scheme", "t5", {}), 128, seed=0).named_parameters())
    for name in (name for name in start if name.endswith(("qkv.weight", "out.weight", "gate_and_up.weight"))):
        steps = [weights[name] - start[name].detach() for weights in found]
        assert float((steps[0] - steps[1]).norm() / steps[0].norm()) < 0.05, name


@pytest.mark.parametrize("channels", [64, 128])
def test_the_active_flash_attention_gives_the_gradients_of_the_dense_path(channels: int):
    flash.activate(torch.device("cuda"), channels)
    print(flash.active(torch.device("cuda")))
    dims = Dims(d_model=2 * channels, n_head=2, n_layer=1, train_length=512)
    part, found = build_scheme("rope", dims).cuda(), []
    qkv = [torch.randn(2, 2, 512, channels, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    for path in (AttentionPath.auto, AttentionPath.dense):
        pos_BT, x_BTD = torch.arange(512, device="cuda")[None], torch.zeros(2, 512, dims.d_model, device="cuda")
        out = attention(part, *qkv, pos_BT, x_BTD, path=path)
        found.append([out.detach(), *torch.autograd.grad(out.float().square().sum(), qkv)])
    for got, wanted in zip(*found, strict=True):
        assert float((got - wanted).abs().max()) < 0.03 * float(wanted.abs().max())


@pytest.mark.parametrize("preset", ["small_h128", "base_h128"])
def test_a_step_of_131072_tokens_in_one_pass_fits_into_80_gb(preset: str):
    sizes = OmegaConf.to_container(OmegaConf.load(config_dir() / "model" / f"{preset}.yaml"))
    model = build_decoder(ModelConfig(**sizes), 4096, options_of("scheme", "rope", {}), 512, seed=0).cuda().train()
    optimizer = optim.build_optimizer(model, TrainConfig(optimizer=Optimizer.muon))
    torch._dynamo.reset()
    torch.cuda.reset_peak_memory_stats()
    step, tokens_BT = torch.compile(model.loss), torch.randint(0, 4096, (256, 513), device="cuda")
    for _ in range(2):
        with autocast(Precision.bfloat16, torch.device("cuda")):
            step(tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated()
    print(f"{preset}: {peak / 1e9:.1f} GB")
    assert peak < 78e9


@pytest.fixture
def one_rank():
    """A group of one process over NCCL: what several do, without the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    torch.cuda.set_device(0)
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=address, rank=0, world_size=1)
    yield distributed.Ranks(Place(size=2))  # so that it is treated as one of several
    dist.destroy_process_group()


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize(
    ("scheme", "optimizer"),
    [*((scheme, Optimizer.adamw) for scheme in ("rope", "t5", "fox", "fire")), ("t5", Optimizer.muon)],
)
def test_compiled_steps_over_nccl_are_those_of_one_process(one_rank, scheme, optimizer, strategy):
    torch._dynamo.reset()
    config = TrainCommand(
        scheme=options_of("scheme", scheme, {}),
        label=scheme,
        train=TrainConfig(length=128, tokens=10 * 512, batch_tokens=512, optimizer=optimizer),
        trainer=TrainerConfig(strategy=strategy),
    )
    tokens = torch.randint(0, 500, (4, 129), generator=torch.Generator().manual_seed(0)).cuda()
    found = []
    for ranks in (distributed.Ranks(Place()), one_rank):
        model = build_decoder(config.model, 500, config.scheme, 128, seed=0).cuda().train()
        compute_loss = distributed.distribute(model, config, ranks, compiled=True)
        optimizer, losses = optim.build_optimizer(model, config.train), []
        for _ in range(5):
            with autocast(Precision.bfloat16, torch.device("cuda")):
                loss = compute_loss(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
            loss.backward()
            checkpoint.full(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)).item()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        found.append((losses, checkpoint.tensors(model, optimizer)))
    assert found[0][0] == pytest.approx(found[1][0], abs=0.02)
    assert {name: t.shape for name, t in found[0][1].items()} == {name: t.shape for name, t in found[1][1].items()}


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("strategy", Strategy)
def test_two_gpus_have_the_losses_of_one(tmp_path, strategy):
    write_texts(tmp_path / "text")
    found = []
    for devices in (1, 2):
        results = f"results={devices}"
        words = [results, f"trainer.devices={devices}", f"trainer.strategy={strategy.value}", "device=cuda"]
        answer = posexp("train", "+scheme=t5", *TINY, *words, cwd=tmp_path)
        assert answer.code == 0, answer.err
        (run,) = (Run(path) for path in (tmp_path / str(devices) / "default").iterdir())
        found.append([row["loss"] for row in jsonl.read_lines(run.metrics, print) if "loss" in row])
    assert found[0] == pytest.approx(found[1], abs=0.02)
