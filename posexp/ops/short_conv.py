"""A causal depthwise convolution over a few tokens.

Shape suffixes: B batch, T tokens, D channels, W taps: weight j of a channel multiplies its value j tokens back.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ShortConv(nn.Module):
    """The sum over j of w_j x_(t-j), channel by channel, where tokens before the first are zero.

    It is computed in the dtype of the weights, whatever autocast does, and returned in that of the input.
    """

    def __init__(self, channels: int, taps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, taps))

    def forward(self, x_BTD: Tensor) -> Tensor:
        T, (D, W) = x_BTD.shape[1], self.weight.shape
        with torch.autocast(x_BTD.device.type, enabled=False):
            x_BDT, weight_D1W = x_BTD.transpose(1, 2).to(self.weight.dtype), self.weight.flip(1)[:, None]
            mixed_BDT = F.conv1d(x_BDT, weight_D1W, padding=W - 1, groups=D)[:, :, :T]
        return mixed_BDT.transpose(1, 2).type_as(x_BTD)
