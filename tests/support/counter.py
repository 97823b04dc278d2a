"""A model that knows the text that counts; its loss is a given function of the context."""

import torch
from support.spans import V
from torch import nn

from posexp.config.sections import ModelConfig
from posexp.model.decoder import build_decoder

CPU = torch.device("cpu")
ROPE = {"_target_": "posexp.schemes.rope.Rope", "base": 10000.0, "fraction": 1.0}


class Counter(nn.Module):
    """Knows that texts count on; its loss is a given function of the tokens of context."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, tokens_BT, last=None):
        T = tokens_BT.shape[1]
        context_T = torch.arange(1, T + 1, dtype=torch.float64)
        hidden_BT2 = torch.stack(((tokens_BT + 1) % V, self.loss(context_T).expand(tokens_BT.shape)), dim=-1)
        return hidden_BT2[:, -(last or T) :]

    def logits(self, hidden):
        right = torch.exp(-hidden[..., 1:])
        is_next = torch.arange(V) == hidden[..., :1].long()
        return torch.where(is_next, right, (1 - right) / (V - 1)).log()


def decoder(scheme: dict):
    return build_decoder(ModelConfig(d_model=32, n_layer=2, n_head=2, dropout=0.5), V, scheme, 16, seed=0)
