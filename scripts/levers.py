"""The gain of each optimisation, measured alone: python scripts/levers.py [threads] [rounds] > levers.md

Both sides of a comparison alternate, and figures are medians of the ratios within a round. Memory is measured in a
separate process. Sizes are those of posexp bench: d_model 256, 6 layers, 4 heads, vocabulary 8192, 8 x 512 tokens.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.attention import attention
from posexp.config.components import options_of
from posexp.config.sections import ModelConfig, Precision, TrainConfig
from posexp.data.sampler import SequenceSampler
from posexp.data.store import Tokens
from posexp.dims import Dims
from posexp.evaluation.scoring import measured
from posexp.model import cpu
from posexp.model.decoder import Decoder, build_decoder
from posexp.model.device import autocast
from posexp.ops.cross_entropy import linear_cross_entropy
from posexp.ops.layers import RMSNorm, swiglu
from posexp.schemes import build_scheme
from posexp.schemes.rope import rotary_frequencies, rotate_pairs
from posexp.training import optim

MODEL, VOCAB, BATCH, LENGTH = ModelConfig(d_model=256, n_layer=6, n_head=4), 8192, 8, 512
DIMS = Dims(MODEL.d_model, MODEL.n_head, MODEL.n_layer, LENGTH)
CPU = torch.device("cpu")
Work = Callable[[], object]


def compare(label: str, base: Work, others: dict[str, Work], rounds: int) -> None:
    """Print a line for each of `others`: its time divided by that of `base` in the same round."""
    seconds: dict[str, list[float]] = {"": [], **{name: [] for name in others}}
    for index in range(rounds + 1):
        for name, work in {"": base, **others}.items():
            began = time.perf_counter()
            work()
            if index:  # the first round is a warm-up
                seconds[name].append(time.perf_counter() - began)
    for name in others:
        ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds[""], strict=True)]
        print(f"| {label} | {name} | {median(ratios):.2f} |", flush=True)


def bias(length: int, rounds: int) -> None:
    q_BHTC, k_BHTC, v_BHTC = torch.randn(3, 1, DIMS.n_head, length, DIMS.head_dim)
    alibi, none = build_scheme("alibi", DIMS), build_scheme("none", DIMS)
    pos_1T, x_BTD = torch.arange(length)[None], torch.zeros(1, length, DIMS.d_model)

    def flushed(scheme: nn.Module, flush: bool) -> Work:
        def work() -> None:
            torch.set_flush_denormal(flush)
            with torch.no_grad():
                attention(scheme, q_BHTC, k_BHTC, v_BHTC, pos_1T, x_BTD)  # type: ignore[arg-type]

        return work

    others = {"ALiBi, denormals kept": flushed(alibi, False), "ALiBi, flushed": flushed(alibi, True)}
    compare(f"causal attention at {length:,}", flushed(none, True), others, rounds)
    torch.set_flush_denormal(True)


def back(work: Callable[[], Tensor], *leaves: Tensor) -> Work:
    """Return the forward and backward pass of `work`."""

    def both() -> None:
        for leaf in leaves:
            leaf.grad = None
        work().sum().backward()

    return both


def layers(rounds: int) -> None:
    x = torch.randn(BATCH, LENGTH, MODEL.d_model, requires_grad=True)
    own, plain = RMSNorm(MODEL.d_model), nn.RMSNorm(MODEL.d_model)
    compare("norm, operations one by one", back(lambda: plain(x), x), {"in one": back(lambda: own(x), x)}, rounds)
    h = torch.randn(BATCH, LENGTH, 1344, requires_grad=True)

    def gated() -> Tensor:
        gate, up = h.chunk(2, dim=-1)
        return F.silu(gate) * up

    compare("SwiGLU, operations one by one", back(gated, h), {"silu again": back(lambda: swiglu(h), h)}, rounds)
    q = torch.randn(BATCH, DIMS.n_head, LENGTH, DIMS.head_dim, requires_grad=True)
    angle = torch.arange(LENGTH)[None, :, None] * rotary_frequencies(DIMS.head_dim, 10000.0)

    def turned() -> Tensor:
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = q.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)

    compare(
        "RoPE, operations one by one", back(turned, q), {"in place": back(lambda: rotate_pairs(q, angle), q)}, rounds
    )


def losses(rounds: int) -> None:
    hidden = (torch.randn(BATCH * LENGTH, MODEL.d_model) / 2).requires_grad_()
    weight = (torch.randn(VOCAB, MODEL.d_model) / 50).requires_grad_()
    target = torch.randint(VOCAB, (BATCH * LENGTH,))
    others = {"by chunks": back(lambda: linear_cross_entropy(hidden, weight, target), hidden, weight)}
    if hasattr(F, "linear_cross_entropy"):
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=512, chunking_method=None)
        theirs = lambda: F.linear_cross_entropy(hidden, weight, target, options=options)  # noqa: E731
        others["PyTorch's by chunks"] = back(theirs, hidden, weight)
    compare(
        "loss of all logits",
        back(lambda: F.cross_entropy(F.linear(hidden, weight), target), hidden, weight),
        others,
        rounds,
    )


def decoder(scheme: str) -> Decoder:
    return build_decoder(MODEL, VOCAB, options_of("scheme", scheme, {}), LENGTH, seed=0)


def step_of(model: Decoder, precision: Precision = Precision.float32) -> Work:
    optimizer = optim.build_optimizer(model, TrainConfig())
    tokens_BT = torch.randint(VOCAB, (BATCH, LENGTH + 1))

    def step() -> None:
        with autocast(precision, CPU):
            loss = model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def shares() -> None:
    """Print the shares of one step's time, between 0 and 1."""
    from torch.profiler import ProfilerActivity, profile

    step = step_of(decoder("none"))
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(spent.values())
    kinds = {"matrix products": ("aten::mm", "aten::addmm"), "attention": ("aten::_scaled_dot_product",)}
    for kind, names in kinds.items():
        share = sum(time_ for key, time_ in spent.items() if key.startswith(names)) / total
        print(f"| step without positions | of it {kind} | {share:.2f} |", flush=True)


def batches() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ids = np.memmap(Path(folder) / "ids", dtype=np.uint16, mode="w+", shape=(4_000_000,))
        windows = SequenceSampler(Tokens(ids, np.array([0, len(ids)]), len(ids), ""), LENGTH, False)
        seconds = []
        for index in range(300):
            began = time.perf_counter()
            windows.batch(0, index, BATCH)
            seconds.append(time.perf_counter() - began)
    print(f"| a batch from the memory map | milliseconds | {1000 * median(seconds):.2f} |", flush=True)


def peak(work: str, scheme: str, length: int) -> None:
    """Print the peak memory above that of the process before it built the model, in MiB, for `memory`."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    model = decoder(scheme)
    if work == "plain":
        model.loss = lambda x, y: F.cross_entropy(model.logits(model(x)).flatten(0, 1), y.flatten())  # type: ignore
    step = step_of(model)
    if work != "read":
        step()
    with measured(CPU) as cost:
        if work == "read":
            with torch.no_grad():
                hidden = model.eval()(torch.randint(VOCAB, (1, length)))
                for part in hidden[0].split(512):
                    model.logits(part)
        else:
            step()
    print(round(((cost.peak_memory or 0) - before) / 2**20))


def memory(label: str, *words: object) -> None:
    command = [sys.executable, __file__, "--peak", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"| {label} | MiB | {done.stdout.strip()} |", flush=True)


def main(threads: int, rounds: int) -> None:
    torch.set_num_threads(threads)
    cpu.prepare()
    print(f"{threads} threads, {rounds} rounds\n\n| what | beside it | of the time |\n| --- | --- | ---: |")
    for length in (2048, 8192, 16384):
        bias(length, rounds)
    layers(rounds)
    losses(rounds)
    narrow = decoder("none")
    others = {"bfloat16 autocast": step_of(narrow, Precision.bfloat16)}
    compare("a step in float32", step_of(narrow), others, rounds)
    a, b = torch.randn(4096, 256), torch.randn(256, 768)
    a16, b16 = a.bfloat16(), b.bfloat16()
    compare("a matrix product in float32", lambda: a @ b, {"in bfloat16": lambda: a16 @ b16}, 10 * rounds)
    shares()
    batches()
    memory("a step, loss of all logits", "plain", "none", LENGTH)
    memory("a step, loss by chunks", "step", "none", LENGTH)
    for length in (8192, 32768):
        for scheme in ("none", "alibi", "t5"):
            memory(f"{scheme} reads {length:,} tokens", "read", scheme, length)


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--peak"]:
        torch.set_num_threads(1)
        cpu.prepare()
        peak(words[1], words[2], int(words[3]))
    elif len(words) > 2 or not all(word.isdigit() for word in words):
        sys.exit(f"{__doc__}\nusage: python scripts/levers.py [threads] [rounds]")
    else:
        main(int(words[0]) if words else 1, int(words[1]) if words[1:] else 5)
