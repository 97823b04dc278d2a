"""Functional interpolation of relative positions (FIRE). Li et al. 2023, arXiv 2310.04418, section 3.

Shape suffixes: B batch, H heads, Q query tokens, K key tokens.
"""

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.schemes.per_layer import pieces

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
        if width < 1:
            raise Misuse(f"scheme.width={width} must be at least 1")
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
        first, relu, last = self.mlp
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)  # for the type checker
        bias = []
        for share_N1 in pieces(share_BQK.flatten()[:, None], 0):
            hidden_NW = relu(torch.addcmul(first.bias, share_N1, first.weight[:, 0]))
            bias.append(torch.addmm(last.bias[:, None], last.weight, hidden_NW.T))
        return torch.cat(bias, dim=1).unflatten(1, share_BQK.shape).transpose(0, 1)

    def extra_repr(self) -> str:
        return f"width={self.mlp[0].out_features}, train_length={self.dims.train_length}"
