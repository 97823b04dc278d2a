"""Wavelet-based relative positions. Oka et al. 2025, arXiv 2502.02004, section 5.

Formula: z(m, n) = (q_m·k_n + Σ_c q_m[c] ψ((m - n - b_c) / a_c)) / √C, with ψ(t) = (1 - t²) exp(-t²/2)
    a_c = 2^(c mod S) and b_c = floor(c / S), for S scales and channels c = 0 .. C - 1
Shape suffixes: B batch, H heads, Q query tokens of a block, K keys that it sees, C channels of a head, E distances.
"""

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.ops.sdpa import biased
from posexp.schemes import exact_type
from posexp.schemes.inkling import relative_logits
from posexp.schemes.per_layer import Block, BlockwiseAttention
from posexp.windows import at_least

WIDTH = 15  # in scales; further from its centre a Ricker wavelet is 0 in float32


class Wavelet(BlockwiseAttention):
    """A bias by distance that depends on the query: each channel of the query weighs one Ricker wavelet.

    There are no parameters. Wavelets have `scales` scales 1, 2, 4, .. in tokens, each with shifts of 0, 1, 2, .. tokens
    back. `scales` null ends at a quarter of the training length, which gives the 8 scales of the paper at its length
    of 512. At distances of 15 times the largest scale every wavelet is 0, as with no positions.
    """

    relative = True
    exact = False  # the fused kernel takes half precision

    def __init__(self, dims: Dims, scales: int | None):
        super().__init__(dims)
        quarter = max(1, dims.train_length // 4)
        self.scales = quarter.bit_length() if scales is None else at_least("scheme.scales", scales, 1)

    def mixture(self, block: Block) -> Tensor:
        scale = self.dims.head_dim**-0.5
        q_BHQC, tokens = block.q.to(exact_type(block.q)) * scale, block.k.shape[2]
        bias_BHQK = relative_logits(q_BHQC, self.curves(tokens, q_BHQC), tokens)
        return biased(block.q, block.k, block.v, block.hide(bias_BHQK), scale)

    def curves(self, tokens: int, like: Tensor) -> Tensor:
        """Return the wavelet of every channel at the distances below `tokens`, or up to where all are 0, [C, E]."""
        channel_C = torch.arange(self.dims.head_dim, device=like.device)
        scale_C, shift_C = 2 ** (channel_C % self.scales), channel_C // self.scales
        reach = WIDTH * 2 ** (self.scales - 1) + self.dims.head_dim // self.scales
        gap_E = torch.arange(min(tokens, reach), device=like.device, dtype=like.dtype)
        squared_CE = ((gap_E - shift_C[:, None]) / scale_C[:, None]) ** 2
        return (1 - squared_CE) * (-squared_CE / 2).exp()

    def notes(self) -> list[str]:
        widest = 2 ** (self.scales - 1)
        if 4 * widest <= self.dims.train_length:
            return []
        return [
            f"the widest wavelet has a scale of {widest} tokens, more than a quarter of the training length of "
            f"{self.dims.train_length}: training sees only a part of it"
        ]
