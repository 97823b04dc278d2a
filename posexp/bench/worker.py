"""The worker process of one contender, started with python -m posexp.bench.worker <file number of its pipe>.

The worker reads a job and then questions, and writes an answer to each. An answer has a `status`, which is "ok" or an
error in one line.

FLOPs are counted as usual (Kaplan et al. 2020, arXiv 2001.08361; Chowdhery et al. 2022, arXiv 2204.02311, appendix B):
two operations for each weight that a token is multiplied with, and causal attention over half of all pairs, or over
those within a window. A backward pass counts twice a forward pass. Recomputation, positional operations and states of
mixers are not counted.

Shape suffixes: S tokens and their successor, N rows and columns of a square matrix.
"""

import gc
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posexp.bench.models import Contender, build_own
from posexp.config.bench import BenchCommand
from posexp.config.sections import Clock, Precision, TrainConfig
from posexp.errors import PosexpError
from posexp.evaluation.scoring import is_out_of_memory, measured
from posexp.model.device import autocast, choose_device
from posexp.training import optim

SMALL = 16  # tokens, and vocabulary size, of a rehearsal
SIZE = 2048  # rows of the square matrices
REPEATS = {"cpu": 1, "cuda": 50}  # a single product on a GPU is too short to time
Answer = dict[str, Any]


class Bench:
    """A contender built for training or for evaluation."""

    def __init__(self, contender: Contender, command: BenchCommand, training: bool):
        self.command, self.training = command, training
        self.device = choose_device(command.device)
        torch.empty(0, device=self.device)  # starts CUDA, which `measured` needs
        with measured(self.device) as before:
            pass
        self.before = before.peak_memory or 0  # bytes in memory now
        build = build_own
        if contender.peer:
            from posexp.bench.peers import build_peer as build
        self.subject = build(contender, command, self.device)
        self.model = self.subject.model.train(training)
        self.parameters = matmul_parameters(self.model, self.subject.head)
        self.config = TrainConfig()
        self.compute_loss: Callable[[Tensor, Tensor], Tensor] = self.subject.loss
        if training:
            self.optimizer = optim.build_optimizer(self.model, self.config)
            if self.device.type == "cuda":  # as posexp train does
                self.compute_loss = torch.compile(self.subject.loss)

    def facts(self) -> Answer:
        return {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "path": self.subject.path,
            "details": {"torch": torch.__version__, "threads": torch.get_num_threads(), **self.subject.details},
        }

    def turn(self, length: int, repeat: int | None) -> Answer:
        """Measure the mean time of `repeat` passes, or of one after a warm-up, and then the matrix peak."""
        once = self.work(length)
        if repeat is None:
            once()
        m, keys = self.command.model, self.subject.keys(length)
        return {
            "seconds": seconds(once, repeat or 1, self.device, self.command.clock),
            "tokens": length * (self.command.batch if self.training else 1),
            "flops_per_token": flops_per_token(self.parameters, m.n_layer, m.d_model, keys, self.training),
            "matmul_peak": matmul_peak(self.device, self.command.precision, self.command.clock),
        }

    def memory(self, length: int) -> Answer:
        """Measure the peak memory of a second pass, in bytes above the memory before the model was built."""
        once = self.work(length)
        once()
        with measured(self.device) as cost:
            once()
        return {"peak_memory": None if cost.peak_memory is None else cost.peak_memory - self.before}

    def work(self, length: int) -> Callable[[], None]:
        """Return one pass over random tokens: a training step or the evaluation of a sequence."""
        draw = torch.Generator().manual_seed(0)
        shape = (self.command.batch, length + 1) if self.training else (length + 1,)
        ids = torch.randint(self.command.vocab_size, shape, generator=draw)
        if not self.training:
            return lambda: self.subject.read(ids)
        ids = ids.to(self.device)
        return lambda: self.step(ids)

    def step(self, ids_BS: Tensor) -> None:
        """Run one full training step as posexp train does."""
        with autocast(self.command.precision, self.device):
            loss = self.compute_loss(ids_BS[:, :-1], ids_BS[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def answer(self, length: int, memory: bool = False, repeat: int | None = None) -> Answer:
        limit = self.subject.max_length
        if limit is not None and limit < length:
            return {"status": "undefined"}
        return self.memory(length) if memory else self.turn(length, repeat)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and kills this process
    pipe: Connection = Connection(int(sys.argv[1]))
    bench: list[Bench] = []

    def begin(contender: Contender, command: BenchCommand, training: bool, rehearse: bool) -> Answer:
        if command.threads is not None:
            torch.set_num_threads(command.threads)
        limit_memory(int(command.memory_limit_gib * 2**30))
        if rehearse and choose_device(command.device).type == "cpu":
            # A small model, so that modules imported on first use do not count as memory of the model.
            sizes = replace(command.model, n_layer=1)
            small = replace(command, model=sizes, vocab_size=SMALL, batch=1, length=SMALL, lengths=[SMALL])
            Bench(contender, small, training).work(SMALL)()
            gc.collect()
        bench.append(Bench(contender, command, training))
        if bench[0].device.type == "cuda" and training and not rehearse:
            bench[0].work(command.length)()  # compile in parallel with the other workers
        return bench[0].facts()

    with suppress(EOFError, OSError):  # the parent closes the pipe or dies
        pipe.send(attempt(begin, pipe.recv()))
        while True:
            pipe.send(attempt(bench[0].answer, pipe.recv()))


def attempt(work: Callable[..., Answer], question: dict[str, Any]) -> Answer:
    """Return the answer of `work`, or its error as one line."""
    try:
        return {"status": "ok", **work(**question)}
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        if is_out_of_memory(error):
            message = "out of memory"
        elif not isinstance(error, PosexpError):
            message = f"{type(error).__name__}: {message}"
        return {"status": message}
    finally:
        gc.collect()


def limit_memory(extra: int) -> None:
    """Limit this process to `extra` bytes of additional address space, on Linux without CUDA only."""
    if sys.platform != "linux" or torch.cuda.is_available():  # CUDA maps far more than it uses
        return
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.getrlimit(resource.RLIMIT_AS)[1]))


def matmul_parameters(model: nn.Module, head: Tensor) -> int:
    """Return the number of weights in linear and recurrent layers and the output layer `head`, which may be tied."""
    kinds = (nn.Linear, nn.RNNBase)
    layers = [part for part in model.modules() if isinstance(part, kinds) or type(part).__name__ == "Conv1D"]  # GPT-2's
    weights = [weight for layer in layers for weight in layer.parameters(recurse=False) if weight.ndim == 2]
    return sum({id(weight): weight.numel() for weight in (head, *weights)}.values())


def flops_per_token(parameters: int, n_layer: int, d_model: int, keys: float, training: bool) -> float:
    """Return FLOPs per token for the count of `matmul_parameters` and the mean number of keys visible to a query."""
    forward = 2 * parameters + 4 * n_layer * keys * d_model
    return 3 * forward if training else forward


def matmul_peak(device: torch.device, precision: Precision, clock: Clock) -> float:
    """Measure the operations per second of a product of square matrices."""
    kind = torch.bfloat16 if precision is Precision.bfloat16 else torch.float32
    a_NN = torch.ones(SIZE, SIZE, device=device, dtype=kind)
    return 2 * SIZE**3 / seconds(lambda: a_NN @ a_NN, REPEATS.get(device.type, 1), device, clock)


def seconds(work: Callable[[], object], repeats: int, device: torch.device, clock: Clock) -> float:
    """Return the mean seconds of a call of `work`."""
    now = time.process_time if clock is Clock.cpu else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = now()
    for _ in range(repeats):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (now() - began) / repeats


if __name__ == "__main__":
    main()
