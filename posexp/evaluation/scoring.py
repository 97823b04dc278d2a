"""The scoring of target tokens: their losses, from which all metrics are derived.

Shape suffixes: W spans, N targets, B batch, T tokens, S scored tokens of a span, D width of the residual stream.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from posexp.config.sections import Precision
from posexp.model import cpu
from posexp.model.device import autocast

if TYPE_CHECKING:
    from posexp.evaluation.interfaces import LanguageModel

# Messages of RuntimeErrors that mean out of memory. "illegal memory access" is another error.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory", "bad_alloc", "ALLOC_FAILED")
HEAD_TOKENS = {"cpu": 512, "cuda": 16384}  # tokens whose logits are in memory at a time

Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scores:
    """The scores of targets. nll: loss in nats, float32 [N]; hit: whether a target is the likeliest token, bool [N]."""

    nll: np.ndarray
    hit: np.ndarray


class Scorer:
    """A model that scores spans (posexp/evaluation/targets.py) in batches of about `batch_tokens` inputs.

    `change` maps text [B, T+1] and the offsets of its first tokens [B] to the text that the model reads; targets are
    not changed. `bos` replaces the first token of each input. `progress` is called with the inputs of each batch.
    """

    def __init__(
        self,
        model: "LanguageModel",
        batch_tokens: int,
        device: torch.device,
        precision: Precision,
        change: Change | None = None,
        bos: int | None = None,
        progress: Callable[[int], object] = lambda inputs: None,
    ):
        self.model, self.batch_tokens = model, batch_tokens
        self.device, self.precision, self.change, self.bos = device, precision, change, bos
        self.progress = progress

    @torch.no_grad()
    def __call__(self, ids: np.ndarray, windows_W3: np.ndarray) -> Scores:
        """Return the scores of the targets of all spans, in order; spans of equal shape are batched."""
        was_training = self.model.training
        self.model.eval()
        start_W, first_W, stop_W = windows_W3.T
        shapes, shape_W = np.unique(np.stack((stop_W - 1 - start_W, stop_W - first_W)), axis=1, return_inverse=True)
        found: dict[int, Scores] = {}
        for shape, (T, _) in enumerate(shapes.T.tolist()):
            indices = np.flatnonzero(shape_W.ravel() == shape)
            for some in np.array_split(indices, -(-len(indices) // max(1, self.batch_tokens // T))):
                found |= zip(some.tolist(), self.fitting(ids, windows_W3[some]), strict=True)
        self.model.train(was_training)
        ordered = [found[index] for index in range(len(windows_W3))]
        return Scores(*(np.concatenate([getattr(one, name) for one in ordered]) for name in ("nll", "hit")))

    def fitting(self, ids: np.ndarray, windows_B3: np.ndarray) -> list[Scores]:
        """Score spans of one shape, in halves if the batch does not fit into memory."""
        try:
            return self.batch(ids, windows_B3)
        except Exception as error:
            if not is_out_of_memory(error) or len(windows_B3) == 1:
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(windows_B3) // 2
        return self.fitting(ids, windows_B3[:half]) + self.fitting(ids, windows_B3[half:])

    def batch(self, ids: np.ndarray, windows_B3: np.ndarray) -> list[Scores]:
        start_B, first_B, stop_B = windows_B3.T
        target_BS = (first_B - start_B)[:, None] + np.arange(stop_B[0] - first_B[0])
        text_BT1 = np.asarray(ids[start_B[:, None] + np.arange(stop_B[0] - start_B[0])]).astype(np.int64)
        right_BS = torch.from_numpy(np.take_along_axis(text_BT1, target_BS, axis=1)).to(self.device)
        if self.change is not None:
            text_BT1 = self.change(text_BT1, start_B)
        if self.bos is not None:
            text_BT1[:, 0] = self.bos
        T = text_BT1.shape[1] - 1
        last = T - int(target_BS.min() - 1)  # inputs from the first whose next token is scored
        with autocast(self.precision, self.device):
            hidden_BTD = self.model(torch.from_numpy(text_BT1[:, :-1]).to(self.device), None if last == T else last)
            at_BS = torch.from_numpy(target_BS - 1 - (T - last)).to(self.device)
            hidden_ND = hidden_BTD[torch.arange(len(windows_B3), device=self.device)[:, None], at_BS].flatten(0, 1)
            nlls, hits = [], []
            size = HEAD_TOKENS.get(self.device.type, HEAD_TOKENS["cpu"])
            for hidden, right in zip(hidden_ND.split(size), right_BS.flatten().split(size), strict=True):
                logits = self.model.logits(hidden)
                nlls.append(F.cross_entropy(logits, right, reduction="none"))
                hits.append(logits.max(-1).indices == right)  # argmax takes three times as long on a CPU
        nll_BS = torch.cat(nlls).view(right_BS.shape).float().cpu().numpy()
        hit_BS = torch.cat(hits).view(right_BS.shape).cpu().numpy()
        self.progress(T * len(windows_B3))
        return [Scores(nll, hit) for nll, hit in zip(nll_BS, hit_BS, strict=True)]


def is_out_of_memory(error: Exception) -> bool:
    """Return whether Python, PyTorch or an allocator ran out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@dataclass
class Cost:
    """The cost of a block of code: seconds, and the peak memory of the process or the GPU, in bytes."""

    seconds: float = 0.0
    peak_memory: int | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Give a Cost, and fill it when the block ends."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        cpu.release_memory()
        with suppress(OSError):  # without permission, the peak is that of the whole process
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak (proc(5))
    cost, began = Cost(), time.perf_counter()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds, cost.peak_memory = time.perf_counter() - began, peak_memory(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the peak in bytes; None where the platform does not report it."""
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
