"""What the machine computes faster with is only taken where it is as exact."""

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from posexp.config.components import options_of, read_options
from posexp.config.sections import AttentionPath, ModelConfig, config_dir
from posexp.model import cpu
from posexp.model.decoder import build_decoder
from posexp.model.device import Graphs, compiled_graphs


@pytest.fixture(autouse=True)
def unchosen() -> Iterator[None]:
    before = cpu.matmul()
    cpu.choose_matmul.cache_clear()
    yield
    cpu.choose_matmul.cache_clear()
    cpu.set_matmul(before)


@pytest.mark.parametrize(("vendor", "chosen"), [("AuthenticAMD", cpu.ONEDNN), ("GenuineIntel", cpu.MKL), ("", cpu.MKL)])
def test_a_faster_multiplication_is_taken_on_cpus_that_have_one(
    monkeypatch: pytest.MonkeyPatch, vendor: str, chosen: str
) -> None:
    monkeypatch.setattr(cpu, "vendor", lambda: vendor)
    monkeypatch.setattr(cpu, "LOSSLESS", 1e6)  # whatever this CPU makes of it
    cpu.prepare()
    assert cpu.matmul() == chosen


def test_one_that_rounds_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(cpu, "samples", lambda: [(rounding(64, 64), torch.randn(64, 64))])
    cpu.prepare()
    assert cpu.matmul() == cpu.MKL
    cpu.prepare(cpu.ONEDNN)
    assert cpu.matmul() == cpu.MKL


class rounding(torch.Tensor):  # noqa: N801 - used like a function
    """A matrix whose products are rounded to bfloat16 while oneDNN is chosen, as on a CPU with bfloat16 units."""

    def __new__(cls, *shape: int):
        return torch.randn(*shape).as_subclass(cls)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        plain = [part.as_subclass(torch.Tensor) if isinstance(part, cls) else part for part in args]
        out = func(*plain, **(kwargs or {}))
        rounds = func in (torch.Tensor.matmul, torch.Tensor.__matmul__) and out.dtype == torch.float32
        return out.bfloat16().float() if rounds and cpu.matmul() == cpu.ONEDNN else out


def test_a_run_goes_on_with_what_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(cpu, "LOSSLESS", 1e6)
    cpu.prepare(cpu.MKL)
    assert cpu.matmul() == cpu.MKL
    monkeypatch.setattr(cpu, "vendor", lambda: "GenuineIntel")
    cpu.prepare(cpu.ONEDNN)
    assert cpu.matmul() == cpu.ONEDNN


def test_a_pytorch_without_the_switch_keeps_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends, "mkldnn", SimpleNamespace(is_available=lambda: True))
    cpu.prepare()
    assert cpu.matmul() == cpu.MKL


@pytest.mark.slow
def test_denormal_numbers_are_flushed_in_every_thread() -> None:
    """exp(-100) is one; a far key's weight under ALiBi is, and costs ten times an ordinary number."""
    code = (
        "import torch; from posexp.model import cpu; torch.set_num_threads(2); cpu.prepare();"
        "print(int((torch.full((2_000_000,), -100.0).exp() != 0).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


SCHEMES = sorted((config_dir() / "scheme").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_training_step_is_compiled_once(path) -> None:
    """Traced as on a GPU, and run without a compiler's back end."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    model = build_decoder(ModelConfig(d_model=32, n_layer=2, n_head=2), 300, read_options(path), 16, seed=0).train()
    step, made = torch.compile(model.loss, backend="eager"), []
    for index in range(5):
        model.scheme.progress(index / 100)
        torch.manual_seed(index)
        tokens_BT = torch.randint(300, (2, 17))
        step(tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous()).backward()
        made.append(counters["stats"]["unique_graphs"])
    assert made[0] > 0
    assert made[1:] == made[:1] * 4


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "window"), [("alibi", "full"), ("t5", "sliding"), ("none", "bca")])
@torch.no_grad()
def test_the_flex_path_is_one_graph_with_the_model_around_it(scheme: str, window: str) -> None:
    """As on a GPU, where a model is compiled whole; here without a compiler's back end, and without a gradient."""
    torch._dynamo.reset()
    config, nodes = ModelConfig(d_model=32, n_layer=2, n_head=2), (options_of("scheme", scheme, {}), 16)
    model = build_decoder(config, 300, *nodes, seed=0, window_node=options_of("window", window, {})).eval()
    tokens_BT = torch.randint(300, (2, 200))
    wanted_BTD = model(tokens_BT)
    model.path = AttentionPath.flex
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens_BT), wanted_BTD, rtol=0, atol=5e-6)
    made = compiled_graphs()
    compiled(tokens_BT)
    assert compiled_graphs() == made


def test_graphs_that_are_compiled_late_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter([3, 3, 4, 5])
    monkeypatch.setattr("posexp.model.device.compiled_graphs", lambda: next(made))
    watch = Graphs(first_step=100)
    assert watch.made_again(110) == "" and watch.made_again(130) == ""
    assert "compiled again by step 140, 4 graphs" in watch.made_again(140)
    assert watch.made_again(150) == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tells no peak memory")
def test_a_small_pass_after_a_large_one_is_not_told_the_large_ones_peak() -> None:
    """Large blocks are kept for the next pass; what a row says of its memory must not count them."""
    code = """
import torch
from posexp.model import cpu
from posexp.evaluation.scoring import measured

cpu.prepare()
for mib in (200, 1):
    with measured(torch.device("cpu")) as cost:
        torch.ones(mib, 2**18).sum()
    print(cost.peak_memory // 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    large, small = map(int, done.stdout.split())
    assert large - small > 150
