"""Who is measured: posexp's decoder with each scheme, and what other libraries give for the same sizes.

Shape suffixes: B batch, T tokens, S tokens and the one after them, V vocabulary, D width of the residual stream.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from posexp.config.sections import AttentionPath, Device, Mlp, ModelConfig, Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BASE = "none"  # the scheme that all ratios are to


@dataclass(frozen=True)
class Contender:
    """What a table calls it, and how a worker makes it: posexp's by the config of their scheme."""

    name: str
    scheme: dict[str, Any] | None = None
    window: dict[str, Any] | None = None  # posexp's: null is a full one
    checkout: str | None = None  # a folder with nanoGPT's model.py

    @property
    def peer(self) -> bool:
        return self.scheme is None


@dataclass(frozen=True)
class Settings:
    """What all contenders are given. Lengths in tokens; `batch` sequences in a training step, one in an evaluation."""

    model: ModelConfig
    vocab_size: int
    batch: int
    length: int
    longest: int  # of all lengths
    precision: Precision
    attention: AttentionPath
    device: Device
    threads: int | None
    memory_limit: int  # bytes, of address space

    def message(self) -> dict[str, Any]:
        """As JSON can say it; `heard` is the way back."""
        enums = {name: getattr(self, name).value for name in ("precision", "attention", "device")}
        return {**asdict(self), **enums, "model": {**asdict(self.model), "mlp": self.model.mlp.value}}


def heard(message: dict[str, Any]) -> Settings:
    model = ModelConfig(**{**message["model"], "mlp": Mlp(message["model"]["mlp"])})
    kinds = {"precision": Precision, "attention": AttentionPath, "device": Device}
    return Settings(**{**message, **{name: kind(message[name]) for name, kind in kinds.items()}, "model": model})


@dataclass
class Subject:
    """A contender that has been built. `loss` of tokens and targets [B, T] is what training calls; `read` scores every
    target of one window, ids [S]. `head` is the weight of the output layer, [V, D]."""

    model: "nn.Module"
    loss: Callable[["Tensor", "Tensor"], "Tensor"]
    read: Callable[["Tensor"], None]
    head: "Tensor"
    path: str
    max_length: int | None = None
    keys: "Callable[[int], float]" = lambda length: length / 2  # that a query sees on average
    details: dict[str, Any] = field(default_factory=dict)  # of the process, for note.json


Build = Callable[[Settings, "torch.device", Precision], Subject]


def load_own(contender: Contender) -> Build:
    """Import all that building posexp's own decoder needs, and set up the process as posexp's commands do."""
    from posexp.model import cpu

    cpu.prepare()
    return lambda settings, device, precision: own(contender, settings, device, precision)


def own(contender: Contender, settings: Settings, device: "torch.device", precision: Precision) -> Subject:
    """posexp's decoder. Raises Misuse for sizes or a path that the scheme or the window cannot have."""
    import numpy as np
    import torch

    from posexp.attention import kernel_path
    from posexp.evaluation.scoring import Read, Scorer
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
        scorer(ids_S.numpy(), [Read(0, len(ids_S), np.arange(1, len(ids_S)))])

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
