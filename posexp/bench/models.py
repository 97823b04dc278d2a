"""The contenders of a bench: posexp's decoder with each scheme, and decoders of other libraries at equal sizes.

Shape suffixes: B batch, T tokens, S tokens and their successor, V vocabulary, D width of the residual stream.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posexp.config.sections import AttentionPath, Device, ModelConfig, Precision
from posexp.config.values import plain_value

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BASE = "none"  # the baseline scheme of all ratios


@dataclass(frozen=True)
class Contender:
    """The name of a contender in tables, and how a worker builds it. `scheme` is None for peers."""

    name: str
    scheme: dict[str, Any] | None = None
    window: dict[str, Any] | None = None  # of posexp's decoder; None for full attention
    checkout: str | None = None  # a folder with nanoGPT's model.py

    @property
    def peer(self) -> bool:
        return self.scheme is None


@dataclass(frozen=True)
class Settings:
    """The settings of all contenders. Lengths are in tokens. Training steps have `batch` sequences, evaluations one."""

    model: ModelConfig
    vocab_size: int
    batch: int
    length: int
    longest: int  # maximum of all lengths
    precision: Precision
    attention: AttentionPath
    device: Device
    threads: int | None
    memory_limit: int  # bytes, of address space

    def message(self) -> dict[str, Any]:
        """Return the settings as JSON values, which `heard` reads."""
        values: dict[str, Any] = plain_value(self)
        return values


def heard(message: dict[str, Any]) -> Settings:
    from omegaconf import OmegaConf

    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), message))
    assert isinstance(settings, Settings)
    return settings


@dataclass
class Subject:
    """A contender that has been built. `read` scores every target of one sequence."""

    model: "nn.Module"
    loss: Callable[["Tensor", "Tensor"], "Tensor"]  # of tokens and targets, [B, T] each
    read: Callable[["Tensor"], None]  # ids [S]
    head: "Tensor"  # weight of the output layer, [V, D]
    path: str
    max_length: int | None = None
    keys: "Callable[[int], float]" = lambda length: length / 2  # mean number of keys visible to a query
    details: dict[str, Any] = field(default_factory=dict)  # of the process, for note.json


Build = Callable[[Settings, "torch.device", Precision], Subject]


def load_own(contender: Contender) -> Build:
    """Set up the process as posexp's commands do, and return a function that builds posexp's decoder."""
    from posexp.model import cpu

    cpu.prepare()
    return lambda settings, device, precision: own(contender, settings, device, precision)


def own(contender: Contender, settings: Settings, device: "torch.device", precision: Precision) -> Subject:
    """Build posexp's decoder. Raises Misuse if the scheme or window does not support the sizes or the path."""
    import numpy as np
    import torch

    from posexp.attention import kernel_path
    from posexp.evaluation.scoring import Scorer
    from posexp.model import cpu
    from posexp.model.decoder import build_decoder

    assert contender.scheme is not None
    sizes, length = (settings.model, settings.vocab_size), settings.length
    model = build_decoder(*sizes, contender.scheme, length, seed=0, window_node=contender.window).to(device)
    model.path = settings.attention
    path = kernel_path(model.scheme, model.scheme.dims, model.window, settings.attention, device)

    def keys(length: int) -> float:
        if model.window.full:
            return length / 2
        index_T = torch.arange(length)
        layers = [model.window.layer(index) for index in range(settings.model.n_layer)]
        counts = [(index_T - window.earliest(index_T) + 1).clamp(max=length).float().mean() for window in layers]
        return float(sum(counts)) / len(counts)

    def read(ids_S: "Tensor") -> None:
        scorer = Scorer(model, len(ids_S), device, precision)
        scorer(ids_S.numpy(), np.array([[0, 1, len(ids_S)]]))

    return Subject(
        model=model,
        loss=model.loss,
        read=read,
        head=model.embedding.weight,
        path=path,
        max_length=model.scheme.max_length,
        keys=keys,
        details={"matmul": cpu.matmul()},
    )
