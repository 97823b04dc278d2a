"""The gain of each optimisation, measured alone: python scripts/levers.py [threads] [rounds] > levers.md

Both sides of a comparison alternate, and figures are medians of the ratios within a round, of CPU time, since a machine
may be shared. Memory is measured in a separate process. Sizes are those of posexp bench: d_model 256, 6 layers, 4
heads, vocabulary 8192, 8 x 512 tokens.

With "gradients" in place of the threads: what the gradients written by hand save (results/bench/gradients.md). With
"content": the schemes that read content beside ALiBi (results/bench/content-schemes.md). With
"evaluation": what a bias by distance costs beside no positions, in evaluation (results/bench/levers.md).
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

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
from posexp.evaluation.scoring import Scorer, measured
from posexp.model import cpu
from posexp.model import decoder as decoders
from posexp.model.decoder import Decoder, build_decoder
from posexp.model.device import autocast
from posexp.ops.cross_entropy import LOGITS, linear_cross_entropy
from posexp.ops.layers import RMSNorm
from posexp.schemes import build_scheme, rope
from posexp.training import optim

MODEL, VOCAB, BATCH, LENGTH = ModelConfig(d_model=256, n_layer=6, n_head=4), 8192, 8, 512
TINY, CONTENT_LENGTH = ModelConfig(d_model=128, n_layer=5, n_head=4), 2048
DIMS = Dims(MODEL.d_model, MODEL.n_head, MODEL.n_layer, LENGTH)
CPU = torch.device("cpu")
Work = Callable[[], object]


def compare(label: str, base: Work, others: dict[str, Work], rounds: int) -> None:
    """Print a line for each of `others`: its time divided by that of `base` in the same round."""
    seconds: dict[str, list[float]] = {"": [], **{name: [] for name in others}}
    for index in range(rounds + 1):
        for name, work in {"": base, **others}.items():
            began = time.process_time()
            work()
            if index:  # the first round is a warm-up
                seconds[name].append(time.process_time() - began)
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


def plain_swiglu(gate_and_up_BTG: Tensor) -> Tensor:
    gate_BTF, up_BTF = gate_and_up_BTG.chunk(2, dim=-1)
    return F.silu(gate_BTF) * up_BTF


def plain_rotation(x_BHTC: Tensor, angle_BTI: Tensor, *_: object) -> Tensor:
    cos_B1TI, sin_B1TI = angle_BTI.cos()[:, None], angle_BTI.sin()[:, None]
    a_BHTI, b_BHTI = x_BHTC.to(angle_BTI.dtype).chunk(2, dim=-1)
    turned = (a_BHTI * cos_B1TI - b_BHTI * sin_B1TI, a_BHTI * sin_B1TI + b_BHTI * cos_B1TI)
    return torch.stack(turned, -2).flatten(-2).type_as(x_BHTC)


def plain_loss(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden_ND, weight_VD).float(), target_N)


def chunked_loss(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=LOGITS["cpu"] // VOCAB, chunking_method=None)
    return F.linear_cross_entropy(hidden_ND, weight_VD, target_N, options=options)


# PyTorch's own operations in place of what is written by hand: the namespace, the name and the replacement.
PLAIN: dict[str, tuple[Any, str, Any]] = {
    "RMSNorm": (RMSNorm, "forward", nn.RMSNorm.forward),
    "SwiGLU": (decoders, "swiglu", plain_swiglu),
    "RoPE": (rope, "rotate_pairs", plain_rotation),
    "cross entropy": (decoders, "linear_cross_entropy", plain_loss),
    "PyTorch's chunked cross entropy": (decoders, "linear_cross_entropy", chunked_loss),
}


def gradients(rounds: int) -> None:
    for name, model in {"tiny": TINY, "bench": MODEL}.items():
        for precision in (Precision.float32, Precision.bfloat16):
            label, step = f"{name}, {precision.value}", step_of(decoder("rope", model), precision)

            def patched(what: str, step: Work = step) -> Work:
                def work() -> None:
                    with patch.object(*PLAIN[what]):
                        step()

                return work

            compare(label, step, {what: patched(what) for what in PLAIN}, rounds)
            for what in ("by hand", *PLAIN):
                memory(f"{label}, {what}", what, "rope", LENGTH, name, precision.value)


def content(rounds: int) -> None:
    for name in ("dape", "fire", "cope", "path"):
        reads = [read_of(decoder(scheme), CONTENT_LENGTH) for scheme in ("alibi", name)]
        compare(f"ALiBi reads {CONTENT_LENGTH:,} tokens", reads[0], {name: reads[1]}, rounds)
        steps = [step_of(decoder(scheme)) for scheme in ("alibi", name)]
        compare("a step with ALiBi", steps[0], {name: steps[1]}, rounds)
    for name in ("alibi", "dape", "fire", "cope", "path"):
        memory(f"{name} reads {CONTENT_LENGTH:,} tokens", "read", name, CONTENT_LENGTH)
        memory(f"a step with {name}", "step", name, LENGTH)


def evaluation(rounds: int) -> None:
    for precision in (Precision.float32, Precision.bfloat16):
        for length in (512, 2048, 8192):
            none, *others = (read_of(decoder(name), length, precision) for name in ("none", "alibi", "t5"))
            label = f"none reads {length:,} tokens, {precision.value}"
            compare(label, none, dict(zip(("ALiBi", "T5"), others, strict=True)), rounds)


def losses(rounds: int) -> None:
    hidden = (torch.randn(BATCH * LENGTH, MODEL.d_model) / 2).requires_grad_()
    weight = (torch.randn(VOCAB, MODEL.d_model) / 50).requires_grad_()
    target = torch.randint(VOCAB, (BATCH * LENGTH,))
    kinds = {"all logits": plain_loss, "by chunks": linear_cross_entropy}
    if hasattr(F, "linear_cross_entropy"):
        kinds["PyTorch's by chunks"] = chunked_loss
    works = {name: back(partial(loss, hidden, weight, target), hidden, weight) for name, loss in kinds.items()}
    compare("loss of all logits", works.pop("all logits"), works, rounds)


def decoder(scheme: str, model: ModelConfig = MODEL) -> Decoder:
    return build_decoder(model, VOCAB, options_of("scheme", scheme, {}), LENGTH, seed=0)


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


def read_of(model: Decoder, length: int, precision: Precision = Precision.float32) -> Work:
    """Return a pass that scores `length` tokens, as posexp eval does."""
    ids, scorer = np.random.default_rng(0).integers(VOCAB, size=length + 1), Scorer(model, length, CPU, precision)
    return lambda: scorer(ids, np.array([[0, 1, length + 1]]))


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


def peak(work: str, scheme: str, length: str, model: str = "bench", precision: str = "float32") -> None:
    """Print the peak memory above that of the process before it built the model, in MiB, for `memory`."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    built = decoder(scheme, TINY if model == "tiny" else MODEL)
    once = read_of(built, int(length)) if work == "read" else step_of(built, Precision(precision))
    with patch.object(*PLAIN[work]) if work in PLAIN else nullcontext():
        once()
        with measured(CPU) as cost:
            once()
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
    losses(rounds)
    narrow = decoder("none")
    others = {"bfloat16 autocast": step_of(narrow, Precision.bfloat16)}
    compare("a step in float32", step_of(narrow), others, rounds)
    a, b = torch.randn(4096, 256), torch.randn(256, 768)
    a16, b16 = a.bfloat16(), b.bfloat16()
    compare("a matrix product in float32", lambda: a @ b, {"in bfloat16": lambda: a16 @ b16}, 10 * rounds)
    shares()
    batches()
    memory("a step, loss of all logits", "cross entropy", "none", LENGTH)
    memory("a step, loss by chunks", "step", "none", LENGTH)
    for length in (8192, 32768):
        for scheme in ("none", "alibi", "t5"):
            memory(f"{scheme} reads {length:,} tokens", "read", scheme, length)


if __name__ == "__main__":
    words = sys.argv[1:]
    others = {"gradients": gradients, "content": content, "evaluation": evaluation}
    if words[:1] == ["--peak"]:
        torch.set_num_threads(1)
        cpu.prepare()
        peak(*words[1:])
    elif len(words) > 2 or not all(word.isdigit() or word in others for word in words):
        sys.exit(f"{__doc__}\nusage: python scripts/levers.py [threads | gradients | content | evaluation] [rounds]")
    elif words and words[0] in others:
        torch.set_num_threads(1)
        cpu.prepare()
        others[words[0]](int(words[1]) if words[1:] else 5)
    else:
        main(int(words[0]) if words else 1, int(words[1]) if words[1:] else 5)
