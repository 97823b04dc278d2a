"""Who is measured: posexp's decoder with each scheme, and what other libraries give for the same sizes.

Shape suffixes: B batch, T tokens, S tokens and the one after them, V vocabulary, D width of the residual stream.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from posexp.config import AttentionPath, Device, Mlp, ModelConfig, Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BASE = "none"  # the scheme that all ratios are to


@dataclass(frozen=True)
class Contender:
    """What a table calls it, and how a worker makes it: posexp's by the config of their scheme."""

    name: str
    scheme: dict[str, Any] | None = None
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
    details: dict[str, Any] = field(default_factory=dict)  # of the process, for note.json


Build = Callable[[Settings, "torch.device", Precision], Subject]


def load(contender: Contender) -> Build:
    """Imports all that building needs, and sets up the process: posexp's as its commands do, others not at all."""
    if contender.scheme is None:
        from posexp.bench import peers

        return peers.load(contender)
    from posexp import machine

    machine.prepare()
    node = contender.scheme
    return lambda settings, device, precision: own(node, settings, device, precision)


def own(node: dict[str, Any], settings: Settings, device: "torch.device", precision: Precision) -> Subject:
    """posexp's decoder. Raises Misuse for sizes or a path that the scheme cannot have."""
    import numpy as np

    from posexp import machine
    from posexp.attention import kernel_path
    from posexp.evaluation.scoring import Read, Scorer
    from posexp.model import build

    model = build(settings.model, settings.vocab_size, node, settings.length, seed=0).to(device)
    model.path = settings.attention
    path = kernel_path(model.scheme, model.scheme.dims, model.window, settings.attention)

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
        details={"matmul": machine.matmul()},
    )
