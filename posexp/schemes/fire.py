"""Functional interpolation of relative positions (FIRE). Li et al. 2023, arXiv 2310.04418, section 3.

Formula: z(m, n) = q_m·k_n / √C + mlp(psi(d) / psi(max(L, m)))[h]
    psi(x) = log(|c| x + 1); c and L are trained, and L starts at the training length
Shape suffixes: B batch, H heads, Q query tokens, K key tokens, N pairs of a query and a key, W units of the network.
"""

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import Scheme
from posexp.schemes.per_layer import pieces
from posexp.windows import at_least

EPSILON = 1e-6  # keeps the share finite if c or the threshold becomes 0


class Fire(Scheme):
    """A bias mlp(psi(distance) / psi(max(L, query position)))[head], with psi(x) = log(|c| x + 1).

    Past the threshold L, distances are shares of the query's position, so the input of the network is at most 1.
    L is `threshold` times the training length; `threshold` and c are learned. One network serves all blocks. Width and
    initial values are those of chuanyang-Zheng/DAPE, since the authors published no code. Raises Misuse for a width
    below 1.
    """

    def __init__(self, dims: Dims, width: int):
        super().__init__(dims)
        at_least("scheme.width", width, 1)
        self.mlp = nn.Sequential(nn.Linear(1, width), nn.ReLU(inplace=True), nn.Linear(width, dims.n_head))
        self.c = nn.Parameter(torch.tensor([0.1]))  # one dimension, since FSDP cannot shard a scalar
        self.threshold = nn.Parameter(torch.tensor([1.0]))

    def psi(self, x: Tensor) -> Tensor:
        return torch.log1p(self.c.abs() * x)

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor:
        gap_BQK = (pos_BQ[:, :, None] - pos_BK[:, None, :]).clamp(min=0)
        threshold = self.threshold.abs() * self.dims.train_length
        end_BQ1 = torch.maximum(pos_BQ[:, :, None].to(threshold.dtype), threshold)
        share_BQK = self.psi(gap_BQK) / (self.psi(end_BQ1) + EPSILON)
        w_W1, b_W1, out_HW, out_H1 = self.network(share_BQK)
        bias_HN = [
            torch.addmm(out_H1, out_HW, torch.addmm(b_W1, w_W1, share_1N).relu_())
            for share_1N in pieces(share_BQK.flatten()[None], 1)
        ]
        return torch.cat(bias_HN, dim=1).unflatten(1, share_BQK.shape).transpose(0, 1)

    def network(self, share_BQK: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weights and biases of both layers: on a CPU, those of a smaller network that is equal on the shares.

        A unit that keeps its sign from 0 to the largest share is 0 or linear there. One unit with input weight 1 and
        bias 0 replaces the linear ones, since shares are not negative. At the start a quarter of the units remain.
        """
        first, last = self.mlp[0], self.mlp[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        w_W1, b_W1, out_HW, out_H1 = first.weight, first.bias[:, None], last.weight, last.bias[:, None]
        if share_BQK.is_cuda or torch.compiler.is_compiling():  # which would wait for the number of units
            return w_W1, b_W1, out_HW, out_H1
        begin_W, end_W = (b_W1 > 0)[:, 0], (w_W1 * share_BQK.detach().amax() + b_W1 > 0)[:, 0]
        linear_W, bent_W = begin_W & end_W, begin_W != end_W
        linear_HW = out_HW[:, linear_W]
        one, zero = torch.ones_like(w_W1[:1]), torch.zeros_like(w_W1[:1])
        return (
            torch.cat((one, w_W1[bent_W])),
            torch.cat((zero, b_W1[bent_W])),
            torch.cat((linear_HW @ w_W1[linear_W], out_HW[:, bent_W]), dim=1),
            out_H1 + linear_HW @ b_W1[linear_W],
        )

    def extra_repr(self) -> str:
        return f"width={self.mlp[0].out_features}, train_length={self.dims.train_length}"
