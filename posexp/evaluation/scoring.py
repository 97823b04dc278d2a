"""Scoring: the loss of every target token. Metrics are derived from these alone.

Shape suffixes: W windows, N targets, B batch, T tokens, S scored tokens of a window, D width of the residual stream.
"""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from posexp.config import Precision
from posexp.device import autocast
from posexp.model import Decoder

HEAD_TOKENS = 2048  # tokens whose logits are alive at a time: a vocabulary of floats each


@torch.no_grad()
def token_losses(
    model: Decoder,
    ids: np.ndarray,
    windows_W3: np.ndarray,
    batch_tokens: int,
    device: torch.device,
    precision: Precision,
) -> np.ndarray:
    """Loss of each target in nats, float32 [N], in the order of the windows (see posexp/evaluation/protocols.py).

    Windows of one shape are scored together, about `batch_tokens` inputs at a time.
    """
    was_training = model.training
    model.eval()
    starts_W, firsts_W, stops_W = windows_W3.T
    shapes_W2 = np.stack((stops_W - 1 - starts_W, stops_W - firsts_W), axis=1)
    scored: list[np.ndarray | None] = [None] * len(windows_W3)
    for T, S in np.unique(shapes_W2, axis=0).tolist():
        members = np.flatnonzero((shapes_W2 == (T, S)).all(axis=1))
        for some in np.array_split(members, -(-len(members) // max(1, batch_tokens // T))):
            text_BT1 = np.stack([ids[starts_W[w] : stops_W[w]] for w in some]).astype(np.int64)
            text = torch.from_numpy(text_BT1).to(device)
            with autocast(precision, device):
                hidden_BSD = model(text[:, :-1])[:, T - S :]
                losses = [
                    F.cross_entropy(model.logits(hidden), target, reduction="none")
                    for hidden, target in zip(
                        hidden_BSD.flatten(0, 1).split(HEAD_TOKENS),
                        text[:, T - S + 1 :].flatten().split(HEAD_TOKENS),
                        strict=True,
                    )
                ]
            for w, losses_S in zip(some, torch.cat(losses).view(len(some), S).cpu().numpy(), strict=True):
                scored[w] = losses_S
    model.train(was_training)
    return np.concatenate([losses_S for losses_S in scored if losses_S is not None]).astype(np.float32)


@dataclass
class Cost:
    """What a stretch of work took: seconds, and the most memory the process (or the GPU) held in it, in bytes."""

    seconds: float = 0.0
    peak_memory: int | None = None


class measured:  # noqa: N801 - used like a function
    """`with measured(device) as cost:` fills `cost` when the block ends."""

    def __init__(self, device: torch.device):
        self.device = device

    def __enter__(self) -> Cost:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif sys.platform == "linux":
            with suppress(OSError):  # where it is not allowed, the peak is that of the process's whole life
                Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (proc(5))
        self.cost, self.began = Cost(), time.perf_counter()
        return self.cost

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.cost.seconds = time.perf_counter() - self.began
        self.cost.peak_memory = peak_memory(self.device)


def peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None
