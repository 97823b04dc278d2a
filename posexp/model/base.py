"""The base class of models: what posexp needs of a decoder, whoever wrote its blocks.

Shape suffixes: B batch, T tokens, D width of the residual stream, N queries, V vocabulary.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.attention import attention, kernel_path
from posexp.config.components import class_of
from posexp.config.sections import AttentionPath, ModelConfig
from posexp.errors import Misuse
from posexp.mixers import Mixer
from posexp.ops.cross_entropy import linear_cross_entropy
from posexp.schemes import EMBEDDING_STD, Scheme
from posexp.windows import Window

Attend = Callable[..., Tensor]  # `attention` with all arguments bound but q, k, v and x_BTD

BASE_WIDTH = 128  # the width of model=tiny, at which the tied output layer is not scaled


class Model(nn.Module):
    """A causal language model whose positions are those of a scheme and a window, with tied embeddings.

    A subclass has `blocks`, an nn.ModuleList of `config.n_layer` modules, and a `forward` from tokens to hidden states,
    in which each block calls its `attend`. Its constructor takes the arguments of this one. posexp replaces `scheme`,
    `window` and `path` of a model in evaluation.
    """

    blocks: nn.ModuleList

    def __init__(self, config: ModelConfig, vocab_size: int, scheme: Scheme, window: Window | None = None):
        super().__init__()
        self.scheme = scheme
        self.window = window or Window(scheme.dims)
        self.path = AttentionPath.auto
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        with torch.no_grad():
            self.embedding.weight.mul_(EMBEDDING_STD)

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        """Return the hidden states of tokens (int64), [B, T, D], the input of `logits`.

        With `last`, return those of the last tokens alone, [B, last, D].
        """
        raise NotImplementedError

    def embed(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the first block, [B, T, D], and the positions, [B or 1, T].

        Raises Misuse if the input is longer than the `max_length` of the scheme.
        """
        T = tokens_BT.shape[1]
        limit = self.scheme.max_length
        if limit is not None and limit < T:
            raise Misuse(f"{self.scheme.fingerprint()} is undefined past {limit} tokens, got an input of {T}")
        pos_BT = self.scheme.positions_of(tokens_BT)
        x_BTD = self.embedding(tokens_BT) / EMBEDDING_STD
        return self.scheme.embed(x_BTD, pos_BT), pos_BT

    def attend(self, layer: int, pos_BT: Tensor, last: int | None = None) -> Attend:
        """Return the attention of a layer: a function of q, k and v, [B, H, T, C] each, and the block's input x_BTD.

        It returns [B, H, T, C], or [B, H, last, C] with `last`.
        """
        scheme, window = self.scheme.layer(layer), self.window.layer(layer)
        return partial(attention, scheme, pos_BT=pos_BT, window=window, path=self.path, last=last)

    @property
    def mixer(self) -> Mixer | None:
        """The mixer of the first block that has one; None if all blocks have attention."""
        return None

    @property
    def attends(self) -> bool:
        """Whether any block has attention."""
        return True

    def kernel_path(self, device: torch.device | None = None) -> str:
        """Return how mixer and attention are computed on `device`. Raises Misuse as `attention` does."""
        mixer = [self.mixer.path] if self.mixer is not None else []
        attends = [kernel_path(self.scheme, self.scheme.dims, self.window, self.path, device)] if self.attends else []
        return ", ".join(mixer + attends)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Return logits, [B, T, V] float32."""
        return F.linear(self.scaled(hidden_BTD), self.embedding.weight).float()

    def scaled(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD * (BASE_WIDTH / self.embedding.embedding_dim)

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean loss in nats per token."""
        hidden_ND = self.scaled(self(tokens_BT)).flatten(0, 1)
        return linear_cross_entropy(hidden_ND, self.embedding.weight, targets_BT.flatten())

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of parameters in total, of the token embeddings, of the scheme, and of the rest."""
        total = sum(weight.numel() for weight in self.parameters())
        embedding = self.embedding.weight.numel()
        scheme = sum(weight.numel() for weight in self.scheme.parameters())
        return {"total": total, "embedding": embedding, "scheme": scheme, "decoder": total - embedding - scheme}


def own_model(config: ModelConfig, vocab_size: int, scheme: Scheme, window: Window) -> Model:
    """Return a model of the class that `config.target` names.

    Raises Misuse if the class cannot be imported, is not a `Model`, or has no blocks.
    """
    kind = class_of("model", Model, {"_target_": config.target})
    model = kind(config, vocab_size, scheme, window)
    if not isinstance(getattr(model, "blocks", None), nn.ModuleList):
        raise Misuse(f"{config.target} must have `blocks`, an nn.ModuleList")
    return model
