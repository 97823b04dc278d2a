"""States that decay: step sizes, decay rates, and the products of decays within a chunk of tokens.

Shape suffixes: B batch, H heads, T tokens, L tokens of a chunk.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 64  # tokens whose pairs are computed together
STEPS, FLOOR = (0.001, 0.1), 1e-4  # range of the step sizes at the start of training, and the least one


class Decay(nn.Module):
    """The logarithm of the decay per token, -exp(A) softplus(x + bias). Gu and Dao 2023 (Mamba), arXiv 2312.00752."""

    def __init__(self, heads: int, least: float, most: float):
        """Draw rates exp(A) evenly from [`least`, `most`] and step sizes softplus(bias) evenly in logarithm."""
        super().__init__()
        self.log_rate_H = nn.Parameter(torch.empty(heads).uniform_(least, most).log())
        low, high = map(math.log, STEPS)
        step_H = torch.empty(heads).uniform_(low, high).exp().clamp(min=FLOOR)
        self.bias_H = nn.Parameter(step_H + torch.log(-torch.expm1(-step_H)))  # the inverse of softplus

    def forward(self, x_BTH: Tensor) -> tuple[Tensor, Tensor]:
        """Return step sizes and logarithms of decays, [B, H, T] each."""
        step_BHT = F.softplus(x_BTH + self.bias_H).transpose(1, 2)
        return step_BHT, -self.log_rate_H.exp()[:, None] * step_BHT


def decays_within(log_BHL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the products of decays of a chunk: from its beginning to each token (inclusive), [B, H, L, 1]; between
    each token and every earlier one, [B, H, L, L]; and from each token to the end of the chunk, [B, H, L, 1].
    """
    sum_BHL = log_BHL.cumsum(-1)
    between_BHLL = sum_BHL[..., :, None] - sum_BHL[..., None, :]
    later_LL = torch.ones(between_BHLL.shape[-2:], dtype=torch.bool, device=log_BHL.device).triu(1)
    between_BHLL = between_BHLL.masked_fill(later_LL, -torch.inf).exp()
    return sum_BHL.exp()[..., None], between_BHLL, (sum_BHL[..., -1:] - sum_BHL).exp()[..., None]
