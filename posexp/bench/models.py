"""The contenders of a bench: posexp's decoder with each scheme, and decoders of other libraries at equal sizes.

Shape suffixes: B batch, T tokens, S tokens and their successor, V vocabulary, D width of the residual stream.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posexp.config.bench import BenchCommand
from posexp.report.bench_records import components_of

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
    temperature: dict[str, Any] | None = None
    mixer: dict[str, Any] | None = None
    checkout: str | None = None  # a folder with nanoGPT's model.py

    @property
    def peer(self) -> bool:
        return self.scheme is None

    @property
    def components(self) -> dict[str, Any]:
        return components_of(self)


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
    details: dict[str, Any] = field(default_factory=dict)  # of the process


def build_own(contender: Contender, command: BenchCommand, device: "torch.device") -> Subject:
    """Build posexp's decoder. Raises Misuse if the scheme or window does not support the sizes or the path."""
    import numpy as np
    import torch

    from posexp.evaluation.scoring import Scorer
    from posexp.mixers import attention_blocks
    from posexp.model import cpu, flash
    from posexp.model.decoder import build_decoder

    assert contender.scheme is not None
    cpu.prepare()  # as posexp's commands do
    sizes, length = (command.model, command.vocab_size), command.length
    nodes = (contender.window, contender.temperature, contender.mixer)
    model = build_decoder(*sizes, contender.scheme, length, 0, *nodes).to(device)
    model.path = command.attention
    flash.activate(device, model.scheme.dims.head_dim)

    attending = len(attention_blocks(contender.mixer, command.model.n_layer))

    def keys(length: int) -> float:
        visible = length / 2
        if not model.window.full:
            index_T = torch.arange(length)
            # a window that differs by head counts as its widest head
            earliest = [model.window.layer(index).earliest(index_T) for index in range(model.scheme.dims.n_layer)]
            visible = float((index_T + 1 - torch.stack(earliest)).clamp(max=length).float().mean())
        return visible * attending / command.model.n_layer

    def read(ids_S: "Tensor") -> None:
        Scorer(model, len(ids_S), device, command.precision)(ids_S.numpy(), np.array([[0, 1, len(ids_S)]]))

    return Subject(
        model=model,
        loss=model.loss,
        read=read,
        head=model.embedding.weight,
        path=model.kernel_path(device),
        max_length=model.scheme.max_length,
        keys=keys,
        details={"matmul": cpu.matmul(), "flash_attention": flash.active(device)},
    )
