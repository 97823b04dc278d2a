"""The gain of shared passes in evaluation: python scripts/sharing.py [model] [lengths] [rounds] > sharing.md

Text and weights are random, which does not change the cost. Two ways alternate: one pass per length with the hidden
states of all tokens, and posexp eval, where all spans that start at the same token share a pass and the last block
skips tokens that are not scored. The columns are input tokens, median seconds, their ratio, and the largest relative
difference of the losses in float32. `dense` scores every token of a stretch, `sparse` a few distant blocks.
"""

import sys
import time
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from posexp.config.components import options_of
from posexp.config.sections import EvalConfig, ModelConfig, Precision
from posexp.data.store import Tokens
from posexp.evaluation.plan import plan
from posexp.evaluation.scoring import Scorer
from posexp.evaluation.shared_passes import Passes
from posexp.evaluation.targets import Measurement
from posexp.model import cpu
from posexp.model.decoder import Decoder, build_decoder

VOCAB, BATCH, SCHEME = 8192, 16384, "rope"
MODELS = {"tiny": ModelConfig(), "bench": ModelConfig(d_model=256, n_layer=6, n_head=4)}
CPU = torch.device("cpu")


class Whole(nn.Module):
    """A wrapper that computes all hidden states, also if only the last are requested."""

    def __init__(self, model: Decoder):
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        return self.model(tokens_BT)[:, -(last or tokens_BT.shape[1]) :]

    def logits(self, hidden_ND: Tensor) -> Tensor:
        return self.model.logits(hidden_ND)


def text(*sizes: int) -> Tokens:
    ids = np.random.default_rng(0).integers(VOCAB, size=sum(sizes)).astype(np.uint16)
    return Tokens(ids, np.concatenate(([0], np.cumsum(sizes))), len(ids), "")


def cases(lengths: list[int]) -> dict[str, tuple[Tokens, list[Measurement]]]:
    longest, stride = max(lengths), 32

    def case(protocol: str, tokens: Tokens, targets: int | None) -> tuple[Tokens, list[Measurement]]:
        asked = EvalConfig(lengths=lengths, protocols=[protocol], stride=stride, targets=targets)
        return tokens, plan(tokens, asked, lengths)

    return {
        "nonoverlapping": case("nonoverlapping", text(2 * longest + 1), None),
        "sliding": case("sliding", text(2 * longest + 1), None),
        "same_targets, dense": case("same_targets", text(2 * longest), None),
        "same_targets, sparse": case("same_targets", text(*[longest + 8 * stride] * 2), 2 * stride),
    }


def evaluate(model: nn.Module, tokens: Tokens, rows: list[Measurement], shared: bool) -> tuple[int, float, np.ndarray]:
    """Return (number of input tokens, seconds, losses of all rows)."""
    scorer = Scorer(model, BATCH, CPU, Precision.float32)  # type: ignore[arg-type]
    began = time.perf_counter()
    if shared:
        one = Passes(lambda reads: scorer(tokens.ids, reads), [row.windows for row in rows], stable=True)
        losses = [one(row.windows).nll for row in rows]
        return one.read, time.perf_counter() - began, np.concatenate(losses)
    read, losses = 0, []
    for row in rows:
        alone = Passes(lambda reads: scorer(tokens.ids, reads), [row.windows], stable=False)
        losses.append(alone(row.windows).nll)
        read += alone.read
    return read, time.perf_counter() - began, np.concatenate(losses)


def main(name: str, lengths: list[int], rounds: int) -> None:
    cpu.prepare()
    model = build_decoder(MODELS[name], VOCAB, options_of("scheme", SCHEME, {}), min(lengths), seed=0).eval()
    print(f"{SCHEME}, {name}, lengths {lengths}, {torch.get_num_threads()} threads, {rounds} rounds\n")
    print(
        "| protocol | tokens, a pass a length | as posexp eval | seconds | seconds | times faster | losses differ by |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for label, (tokens, rows) in cases(lengths).items():
        slow, fast, ratios, difference = [], [], [], 0.0
        for _ in range(rounds):
            alone_read, seconds, alone_N = evaluate(Whole(model), tokens, rows, shared=False)
            read, shared_seconds, shared_N = evaluate(model, tokens, rows, shared=True)
            slow.append(seconds)
            fast.append(shared_seconds)
            ratios.append(seconds / shared_seconds)
            difference = max(difference, float((np.abs(alone_N - shared_N) / alone_N).max()))
        print(
            f"| {label} | {alone_read:,} | {read:,} | {median(slow):.1f} | {median(fast):.1f} | {median(ratios):.2f} "
            f"| {difference:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    words = sys.argv[1:]
    if len(words) > 3 or (words and words[0] not in MODELS):
        sys.exit(f"{__doc__}\nusage: python scripts/sharing.py [{'|'.join(MODELS)}] [length,length,…] [rounds]")
    sizes = words[1] if len(words) > 1 else "512,1024,2048,4096,8192,16384"
    main(
        words[0] if words else "tiny", [int(size) for size in sizes.split(",")], int(words[2]) if len(words) > 2 else 3
    )
