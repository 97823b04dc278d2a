"""Forgetting attention (FoX), elsewhere called data-dependent ALiBi. Lin et al. 2025, arXiv 2503.02130, section 3.

Formula: z(m, n) = q_m·k_n / √C + Σ_t log f_t, for t = n + 1 .. m
    f_t = sigmoid(w_h·x_t + b_h), for every head h
Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, D width of the residual stream, H heads,
C channels of a head.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import INIT_STD, Dims
from posexp.ops.sdpa import biased
from posexp.schemes import exact_type
from posexp.schemes.per_layer import Block, BlockwiseAttention, PerLayer


class ForgetGate(BlockwiseAttention):
    """The gates of one block: f_t = sigmoid(w.x_t + b) for token t in each head.

    The sum of log f_t over t = j+1 .. i is added to the logit of key j for query i.
    """

    relative = True
    exact = False  # the fused kernel takes half precision

    def __init__(self, dims: Dims, gate_bias: float):
        super().__init__(dims)
        self.gate = nn.Linear(dims.d_model, dims.n_head)
        nn.init.normal_(self.gate.weight, std=INIT_STD)
        nn.init.constant_(self.gate.bias, gate_bias)

    def log_kept(self, x_BTD: Tensor) -> Tensor:
        """Return log f, [B, T, H], at most 0."""
        return F.logsigmoid(self.gate(x_BTD))

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        sum_BHT = self.log_kept(x_BTD.to(self.gate.weight.dtype)).transpose(1, 2).double().cumsum(-1)
        for block in blocks:
            # Sums from the input's beginning are large; in float32 their differences lose the nearest keys.
            bias_BHQK = sum_BHT[:, :, block.rows, None] - sum_BHT[:, :, None, block.keys]
            bias_BHQK = block.hide(bias_BHQK.to(exact_type(block.q)))
            yield biased(block.q, block.k, block.v, bias_BHQK, self.dims.head_dim**-0.5)


class Fox(PerLayer):
    """A forget gate for every head and block; no rotation.

    Weights start as the decoder's matrices do, and biases at `gate_bias`. The authors' code has 0, which forgets half
    with every token (zhixuan-lin/forgetting-transformer). x-transformers has 5, which keeps 0.993.
    """

    def __init__(self, dims: Dims, gate_bias: float):
        super().__init__(dims, lambda: ForgetGate(dims, gate_bias))
        self.gate_bias = gate_bias
