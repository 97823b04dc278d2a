"""What evaluation saves beside one pass a length: python scripts/sharing.py [model] [lengths] [rounds] > sharing.md

Random text and weights, which cost what others cost. In turns: every length by itself, hidden states of all tokens; and
as posexp eval does it, where one pass serves all windows that start at the same token, and the last block leaves out
what is not scored. Prints input tokens, medians of seconds, the ratio, and the largest difference between the losses
(a relative one, of float32). `dense` scores every token of a stretch, `sparse` a few blocks far from each other.
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
    """Computes every hidden state, whichever are asked for."""

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
    """(input tokens read, seconds, losses of all rows)."""
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
