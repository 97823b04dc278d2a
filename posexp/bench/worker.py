"""The worker process of one contender, started with python -m posexp.bench.worker.

The protocol is one JSON object per line. The worker reads a job and then questions, and writes an answer to each. An
answer has a `status`, which is "ok" or an error in one line.

Shape suffixes: B batch, T tokens, S tokens and their successor.
"""

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from posexp.bench.flops import flops_per_token, matmul_parameters, matmul_peak, synchronize
from posexp.bench.models import Build, Contender, Settings, heard, load_own
from posexp.config.sections import TrainConfig
from posexp.errors import PosexpError
from posexp.evaluation.scoring import is_out_of_memory, measured, peak_memory
from posexp.model import cpu
from posexp.model.device import autocast, choose_device, choose_precision
from posexp.training import optim

OK, UNDEFINED, OUT_OF_MEMORY = "ok", "undefined", "out of memory"
SMALL = 16  # tokens, and vocabulary size
Answer = dict[str, Any]


class Bench:
    """A contender built for training or for evaluation."""

    def __init__(self, build: Build, settings: Settings, training: bool):
        self.settings, self.training = settings, training
        self.device = choose_device(settings.device)
        self.precision = choose_precision(settings.precision, self.device)
        self.before = memory_in_use(self.device)
        self.subject = build(settings, self.device, self.precision)
        self.model = self.subject.model.train(training)
        self.config = TrainConfig()
        self.compute_loss: Callable[[Tensor, Tensor], Tensor] = self.subject.loss
        if training:
            self.optimizer = optim.build_optimizer(self.model, self.config)
            if self.device.type == "cuda":  # as posexp train does
                self.compute_loss = torch.compile(self.subject.loss)

    def facts(self) -> Answer:
        return {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "matmul_parameters": matmul_parameters(self.model, self.subject.head),
            "path": self.subject.path,
            "details": {"torch": torch.__version__, "threads": torch.get_num_threads(), **self.subject.details},
        }

    def turn(self, length: int, repeat: int | None) -> Answer:
        """Measure the mean time of `repeat` passes, or of one after a warm-up, and then the matrix peak."""
        once = self.work(length)
        if repeat is None:
            once()
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(repeat or 1):
            once()
        synchronize(self.device)
        seconds = (time.perf_counter() - began) / (repeat or 1)
        m = self.settings.model
        parameters = matmul_parameters(self.model, self.subject.head)
        return {
            "seconds": seconds,
            "tokens": length * (self.settings.batch if self.training else 1),
            "flops_per_token": flops_per_token(
                parameters, m.n_layer, m.d_model, self.subject.keys(length), self.training
            ),
            "matmul_peak": matmul_peak(self.device, self.precision),
        }

    def memory(self, length: int) -> Answer:
        """Measure the peak memory of a second pass, in bytes above the memory before the model was built."""
        once = self.work(length)
        once()
        with measured(self.device) as cost:
            once()
        return {"peak_memory": None if cost.peak_memory is None else cost.peak_memory - self.before}

    def work(self, length: int) -> Callable[[], None]:
        draw = torch.Generator().manual_seed(0)
        shape = (self.settings.batch, length + 1) if self.training else (length + 1,)
        ids = torch.randint(self.settings.vocab_size, shape, generator=draw)
        if not self.training:
            return lambda: self.subject.read(ids)
        ids = ids.to(self.device)
        return lambda: self.step(ids)

    def step(self, ids_BS: Tensor) -> None:
        """Run one full training step as posexp train does."""
        with autocast(self.precision, self.device):
            loss = self.compute_loss(ids_BS[:, :-1], ids_BS[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def answer(self, question: dict[str, Any]) -> Answer:
        length, limit = question["length"], self.subject.max_length
        if limit is not None and limit < length:
            return {"status": UNDEFINED}
        if question["do"] == "memory":
            return self.memory(length)
        return self.turn(length, question["repeat"])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and kills this process
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with answers
    bench: list[Bench] = []

    def begin(job: dict[str, Any]) -> Answer:
        settings = heard(job["settings"])
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        limit_memory(settings.memory_limit)
        contender = Contender(**job["contender"])
        if contender.peer:
            from posexp.bench import peers

            build = peers.load_peer(contender)
        else:
            build = load_own(contender)
        if job["rehearse"] and choose_device(settings.device).type == "cpu":
            rehearse(build, settings, job["training"])
        bench.append(Bench(build, settings, job["training"]))
        if bench[0].device.type == "cuda" and job["training"] and not job["rehearse"]:
            bench[0].work(settings.length)()  # compile in parallel with the other workers
        return bench[0].facts()

    respond(answers, begin, json.loads(sys.stdin.readline()))
    for line in sys.stdin:  # ends when the parent closes the pipe or dies
        respond(answers, bench[0].answer, json.loads(line))


def rehearse(build: Build, settings: Settings, training: bool) -> None:
    """Run and free a small model, so that modules imported on first use do not count as memory of the model."""
    model = replace(settings.model, n_layer=1)
    small = replace(settings, model=model, vocab_size=SMALL, batch=1, length=SMALL, longest=SMALL)
    Bench(build, small, training).work(SMALL)()
    gc.collect()
    cpu.release_memory()


def respond(answers: IO[str], work: Callable[[dict[str, Any]], Answer], question: dict[str, Any]) -> None:
    try:
        answer = {"status": OK, **work(question)}
    except Exception as error:
        answer = {"status": worker_reason(error)}
    gc.collect()
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def worker_reason(error: Exception) -> str:
    """Return the error as one line."""
    message = " ".join(str(error).split())[:200]
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return message if isinstance(error, PosexpError) else f"{type(error).__name__}: {message}"


def limit_memory(extra: int) -> None:
    """Limit this process to `extra` bytes of additional address space, on Linux without CUDA only."""
    if sys.platform != "linux" or torch.cuda.is_available():  # CUDA maps far more than it uses
        return
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.getrlimit(resource.RLIMIT_AS)[1]))


def memory_in_use(device: torch.device) -> int:
    """Return the bytes in memory now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return peak_memory(device) or 0
    import resource

    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
