"""The flash attention of a GPU, chosen among fakes: installed or not, failing, wrong, or not for such heads."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from posexp.model import flash

GPU, CPU = torch.device("cuda"), torch.device("cpu")
SAMPLE = flash.sample


class Registry:
    """A fake of torch.nn.attention. `installed` maps names to what they do to the output of PyTorch's own."""

    def __init__(self, **installed: Callable[[Tensor], Tensor]):
        self.installed, self.active, self.tried = installed, "", []

    def activate_flash_attention_impl(self, name: str) -> None:
        self.tried.append(name)
        if name not in self.installed:
            raise ModuleNotFoundError(name)
        self.active = name

    def restore_flash_attention_impl(self) -> None:
        assert self.active, "PyTorch warns if there is nothing to restore"
        self.active = ""

    def current_flash_attention_impl(self) -> str | None:
        return self.active or None


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """A GPU of a compute capability, with what is installed there. Samples are computed on the CPU."""

    def make(capability: tuple[int, int], **installed: Callable[[Tensor], Tensor]) -> Registry:
        registry = Registry(**installed)

        def sample(device: torch.device, channels: int) -> list[Tensor]:
            change = registry.installed.get(registry.active, lambda x: x)
            return [change(x) for x in SAMPLE(CPU, channels)]

        monkeypatch.setattr(flash, "attention", registry)
        monkeypatch.setattr(flash, "sample", sample)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return registry

    flash.choose.cache_clear()
    yield make
    flash.choose.cache_clear()


def right(x: Tensor) -> Tensor:
    return x * 1.004  # as bfloat16 rounds


def wrong(x: Tensor) -> Tensor:
    return x * 1.1


def unfit(x: Tensor) -> Tensor:
    if x.shape[-1] > 128:
        raise AssertionError("head_dim must be at most 128")
    return x


@pytest.mark.parametrize(
    ("capability", "installed", "chosen"),
    [
        ((9, 0), {"FA3": right, "FA4": right}, "FA3"),
        ((9, 0), {"FA4": right}, "FA4"),
        ((9, 0), {"FA3": wrong, "FA4": right}, "FA4"),
        ((9, 0), {"FA3": wrong}, "FA2"),
        ((10, 0), {"FA3": right, "FA4": right}, "FA4"),
        ((9, 0), {}, "FA2"),
        ((8, 0), {"FA3": right, "FA4": right}, "FA2"),
    ],
)
def test_the_fastest_that_is_right_is_active(gpu, capability, installed, chosen):
    registry = gpu(capability, **installed)
    flash.activate(GPU, 64)
    assert flash.active(GPU) == chosen and (registry.active or "FA2") == chosen


def test_heads_for_which_it_fails_have_pytorchs_own_and_others_get_it_back(gpu):
    registry = gpu((10, 0), FA4=unfit)
    found = []
    for channels in (64, 256, 64, 256):
        flash.activate(GPU, channels)
        found.append(flash.active(GPU))
    assert found == ["FA4", "FA2", "FA4", "FA2"]
    assert registry.tried == ["FA4"] * 3, "once for each width, and once to have it back"


def test_a_cpu_an_amd_gpu_and_an_older_pytorch_are_left_alone(gpu, monkeypatch):
    registry = gpu((9, 4), FA3=right)
    flash.activate(CPU, 64)
    assert flash.active(CPU) is None
    monkeypatch.setattr(torch.version, "hip", "6.4")
    flash.activate(GPU, 64)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(flash, "attention", SimpleNamespace())
    flash.activate(GPU, 64)
    assert flash.active(GPU) == "FA2" and not registry.tried


@pytest.mark.skipif(not hasattr(torch.nn.attention, "activate_flash_attention_impl"), reason="a later PyTorch has it")
def test_pytorch_has_the_functions_of_the_fake_and_the_names_of_the_kernels():
    attention = torch.nn.attention
    assert all(callable(getattr(attention, name)) for name in vars(Registry) if name.endswith("_impl"))
    assert {name for names in flash.FASTEST.values() for name in names} <= set(attention.list_flash_attention_impls())
    assert attention.current_flash_attention_impl() is None


@pytest.mark.skipif(any(map(find_spec, ("flash_attn_interface", "flash_attn"))), reason="they are installed")
@pytest.mark.skipif(not hasattr(torch.nn.attention, "activate_flash_attention_impl"), reason="a later PyTorch has it")
def test_the_real_kernels_are_skipped_where_they_are_not_installed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(flash, "sample", lambda device, channels: SAMPLE(CPU, channels))
    flash.choose.cache_clear()
    flash.activate(GPU, 64)
    flash.choose.cache_clear()
    assert flash.active(GPU) == "FA2"
