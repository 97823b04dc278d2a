"""Accumulated Householder products (PaTH). Yang et al. 2025, arXiv 2505.16381, sections 2 and 3.

Formula: z(m, n) = q_m·(H_m H_(m-1) .. H_(n+1) k_n) / √C
    H_t = I - beta_t w_t w_t^T; w_t, of unit length, and beta_t, in (0, 2), are computed from x_t
Shape suffixes: B batch, T tokens, Q query tokens of a block, K keys that the block sees, E keys before the block,
D width of the residual stream, H heads, C channels of a head.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import INIT_STD, Dims
from posexp.schemes import exact_type
from posexp.schemes.per_layer import Block, BlockwiseAttention, PerLayer, recomputed
from posexp.windows import at_least

KERNEL = 3  # tokens of the convolution


class Transitions(BlockwiseAttention):
    """The transitions of one block, H_t = I - beta_t w_t w_t^T. A logit is q_i.(H_i .. H_(j+1) k_j) / sqrt(C).

    w is a low-rank projection of the input, normalised to unit length in each head. With `conv` a causal depthwise
    convolution and a SiLU follow the projection. beta = 2 sigmoid(linear), in (0, 2).
    """

    relative = True

    def __init__(self, dims: Dims, rank: int, conv: bool):
        super().__init__(dims)
        self.down = nn.Linear(dims.d_model, rank, bias=False)
        self.up = nn.Linear(rank, dims.d_model, bias=False)
        self.conv = nn.Conv1d(dims.d_model, dims.d_model, KERNEL, groups=dims.d_model, bias=False) if conv else None
        self.beta = nn.Linear(dims.d_model, dims.n_head)
        for linear in (self.down, self.up, self.beta):
            nn.init.normal_(linear.weight, std=INIT_STD)
        nn.init.zeros_(self.beta.bias)

    def directions(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return w [B, H, T, C] and beta [B, H, T, 1]."""
        w_BTD = self.up(self.down(x_BTD))
        if self.conv is not None:
            w_BTD = F.silu(self.conv(F.pad(w_BTD.transpose(1, 2), (KERNEL - 1, 0)))).transpose(1, 2)
        w_BHTC = w_BTD.unflatten(2, (self.dims.n_head, -1)).transpose(1, 2)
        w_BHTC = w_BHTC * torch.rsqrt(w_BHTC.square().sum(-1, keepdim=True) + 1e-6)
        return w_BHTC, 2 * self.beta(x_BTD).sigmoid().transpose(1, 2)[..., None]

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        """Yield [B, H, Q, C] of every block, in order.

        Let the rows of W, Q and K be those of a block, and u_tj what transition t subtracts from key j along w_t. Then
        (I + beta tril(W W^T, -1)) U = beta tril(W K^T, -1), and the logits are Q K^T - tril(Q W^T) U. Keys of earlier
        blocks are moved by all transitions before the block.
        """
        w_BHTC, beta_BHT1 = (part.to(exact_type(part)) for part in self.directions(x_BTD.to(self.up.weight.dtype)))
        moved_BHEC = w_BHTC[:, :, :0]
        for block in blocks:
            moved_BHEC = moved_BHEC[:, :, block.keys.start - block.rows.start + moved_BHEC.shape[2] :]
            w_BHQC, beta_BHQ1 = w_BHTC[:, :, block.rows], beta_BHT1[:, :, block.rows]
            mixed_BHQC, moved_BHEC = recomputed(self.step, block, w_BHQC, beta_BHQ1, moved_BHEC)
            yield mixed_BHQC

    def step(self, block: Block, w_BHQC: Tensor, beta_BHQ1: Tensor, moved_BHEC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixture of a block, and the keys up to its end moved by all its transitions."""
        q_BHQC, k_BHQC = block.q * self.dims.head_dim**-0.5, block.k[:, :, block.own]
        w_BHCQ = w_BHQC.mT
        mixed_BHQQ = beta_BHQ1 * (w_BHQC @ w_BHCQ)  # only read below the diagonal
        one_QQ, one_CC = (torch.eye(size, dtype=w_BHQC.dtype, device=w_BHQC.device) for size in w_BHQC.shape[2:])
        inverse_BHQQ = torch.linalg.solve_triangular(
            mixed_BHQQ, one_QQ.expand_as(mixed_BHQQ), upper=False, unitriangular=True
        )
        taken_BHQQ = beta_BHQ1.mT * ((q_BHQC @ w_BHCQ).tril() @ inverse_BHQQ)
        within_BHQQ = (w_BHQC @ k_BHQC.mT).tril(-1)
        near_BHQQ = q_BHQC @ k_BHQC.mT - taken_BHQQ @ within_BHQQ
        far_BHQE = (q_BHQC - taken_BHQQ @ w_BHQC) @ moved_BHEC.mT
        logits_BHQK = torch.cat((far_BHQE, near_BHQQ), dim=-1)
        mixture_BHQC = block.hide(logits_BHQK).softmax(-1) @ block.v
        back_BHQC = beta_BHQ1 * (inverse_BHQQ.mT @ w_BHQC)
        moved_BHEC = moved_BHEC @ (one_CC - w_BHCQ @ back_BHQC)
        return mixture_BHQC, torch.cat((moved_BHEC, k_BHQC - within_BHQQ.mT @ back_BHQC), dim=2)


class Path(PerLayer):
    """A reflection per token, computed from the content and applied to all keys before the token.

    `rank` is the rank of the projection to w, 32 in the authors' layer (flash-linear-attention, layers/path_attn.py).
    The convolution, optional in that layer too, makes w depend on two earlier tokens, even past the edge of a window.
    The forget gate of PaTH-FoX is not implemented. Matrices start as the decoder's do, and the convolution as
    PyTorch's: with a spread of 0.02, w^2 would be as small as the 1e-6 in its norm.
    """

    def __init__(self, dims: Dims, rank: int, conv: bool):
        at_least("scheme.rank", rank, 1)
        super().__init__(dims, lambda: Transitions(dims, rank, conv))
        self.rank, self.conv = rank, conv
