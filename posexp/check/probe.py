"""A small decoder for testing a scheme in one precision.

Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head, Q query tokens,
K key tokens, N distances, X everything in a row.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from posexp.config.sections import ModelConfig
from posexp.dims import Dims
from posexp.model.decoder import Block, Decoder
from posexp.schemes import EMBEDDING_STD, Scheme

Make = Callable[[Dims], Scheme]

DIMS = Dims(d_model=32, n_head=4, n_layer=2, train_length=64)
VOCAB = 61
QUERIES = 16  # number of last queries that are measured, to keep long inputs cheap
KEYS = 4096  # keys per block of the bias
FLOOR = -30.0  # of log attention weights; weights below 1e-13 are negligible, and their logits may be huge


class Probe:
    """A decoder with a new scheme, weights of unit gain (logits of about 1) and no scheme parameters at zero.

    `dtype` is float64, float32, or bfloat16 or float16 for autocast.
    """

    def __init__(self, make: Make, dtype: torch.dtype = torch.float32, n_layer: int = DIMS.n_layer):
        self.dtype = dtype
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            self.scheme = make(Dims(DIMS.d_model, DIMS.n_head, n_layer, DIMS.train_length))
            config = ModelConfig(d_model=DIMS.d_model, n_head=DIMS.n_head, n_layer=n_layer)
            self.model = Decoder(config, VOCAB, self.scheme, seed=0).eval()
            for weight in self.model.blocks.parameters():
                if weight.ndim == 2:
                    weight.normal_(std=weight.shape[1] ** -0.5)
            for weight in self.scheme.parameters():
                if not weight.any():
                    weight.normal_(std=0.3)
        if dtype is torch.float64:
            self.model.double()
        # The distinct schemes of the blocks, each with the index of its first block.
        parts = [self.scheme.layer(index) for index in range(n_layer)]
        self.parts = [(index, part) for index, part in enumerate(parts) if part not in parts[:index]]
        self.reads_content = any(part.acts("attend") for part in parts)  # defines the attention of a block

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Run the block without gradients, in the probe's dtype, with a fixed seed for random positions."""
        half = self.dtype in (torch.bfloat16, torch.float16)
        kind = self.dtype if half else torch.bfloat16
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=kind, enabled=half):
            torch.manual_seed(0)
            yield

    def outcome(self, tokens_1T: Tensor, last: int, shift: int = 0) -> Tensor:
        """Return the log attention weights of the queries up to token `last`, or their output if content is read."""
        if self.reads_content:
            return self.hidden(tokens_1T, shift)[:, max(0, last - QUERIES) : last]
        return self.log_weights(tokens_1T, last, shift)

    def hidden(self, tokens_BT: Tensor, shift: int = 0) -> Tensor:
        """Return the decoder's output, [B, T, D], with the positions of every sequence moved by `shift`."""
        positions_of = self.scheme.positions_of
        try:
            self.scheme.positions_of = lambda tokens_BT: positions_of(tokens_BT[:1]) + shift  # type: ignore[method-assign]
            with self.precision():
                return self.model(tokens_BT)
        finally:
            del self.scheme.positions_of

    def log_weights(self, tokens_1T: Tensor, last: int, shift: int = 0) -> Tensor:
        """Return log attention weights [H, Q, K] in float64 for the queries up to token `last`.

        The input is embedded tokens. Heads of all blocks with distinct schemes are concatenated. Rotation and bias are
        computed in the probe's dtype, everything after them in float64.
        """
        found = []
        with self.precision():
            pos_1T = self.scheme.positions_of(tokens_1T) + shift
            x_1TD = self.scheme.embed(self.model.embedding(tokens_1T) / EMBEDDING_STD, pos_1T)
            for index, part in self.parts:
                block = self.model.blocks[index]
                assert isinstance(block, Block)
                q_1HTC, k_1HTC, _ = block.attention.project(block.norm_attention(x_1TD))
                q_1HTC, k_1HTC = part.rotate(q_1HTC, k_1HTC, pos_1T)
                q_1HQC = q_1HTC[:, :, max(0, last - QUERIES) : last].double() * DIMS.head_dim**-0.5
                logits_HQK = (q_1HQC @ k_1HTC[:, :, :last].double().transpose(-1, -2))[0]
                with torch.autocast("cpu", enabled=False):
                    add_bias(logits_HQK, part, pos_1T[:, :last])
                found.append(logits_HQK)
        logits_HQK = torch.cat(found)
        hidden_QK = torch.ones(logits_HQK.shape[1:], dtype=torch.bool).triu(last - logits_HQK.shape[1] + 1)
        return logits_HQK.masked_fill_(hidden_QK, -torch.inf).log_softmax(-1).clamp_(min=FLOOR)


def add_bias(logits_HQK: Tensor, part: Scheme, pos_1K: Tensor) -> None:
    """Add the bias in place as posexp.attention does, by distance in tokens or by position."""
    Q, K = logits_HQK.shape[-2:]
    bias_HN = part.distance_bias(torch.arange(K))
    if bias_HN is not None:
        gap_QK = torch.arange(K - Q, K)[:, None] - torch.arange(K)
        logits_HQK += bias_HN.double()[:, gap_QK.clamp(min=0)]
        return
    for first in range(0, K, KEYS):
        bias_1HQK = part.bias(pos_1K[:, K - Q :], pos_1K[:, first : first + KEYS])
        if bias_1HQK is None:
            return
        logits_HQK[:, :, first : first + KEYS] += bias_1HQK[0]


def text(T: int, B: int = 1) -> Tensor:
    """Return random tokens, [B, T], from a fixed seed."""
    return torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(1))


def furthest(one_X: Tensor, other_X: Tensor) -> float:
    """Return the largest absolute difference, infinite if a value is not finite."""
    apart_X = (one_X.double() - other_X.double()).abs()
    return float(apart_X.nan_to_num(nan=torch.inf).max())
