"""The decoder of posexp for transformers, as posexp export writes it: any scheme, window, temperature or mixer.

The files posexp_*.py beside this one are posexp's own, with relative imports; config.json says what is built of them.
Inputs have no padding, because positions count from the first token.
Shape suffixes: B batch, T tokens (with those in the cache), N new tokens, H heads, C channels of a head, D width of the
residual stream, V vocabulary.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from posexp.attention import attention
from posexp.config.sections import ModelConfig
from posexp.config.values import typed_value
from posexp.errors import Misuse
from posexp.model.decoder import build_model
from posexp.schemes import EMBEDDING_STD


class PosexpConfig(PretrainedConfig):
    """A config whose key `posexp` holds sizes, scheme, window, temperature, mixer and transform as plain values."""

    model_type = "posexp"

    def __init__(self, posexp: dict[str, Any] | None = None, **others: Any):
        self.posexp = posexp or {}
        super().__init__(**others)


class PosexpForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model. `generate` uses a cache of keys and values if `cacheable`."""

    config_class = PosexpConfig
    main_input_name = "input_ids"

    def __init__(self, config: PosexpConfig):
        super().__init__(config)
        about = SimpleNamespace(**config.posexp)
        about.model = typed_value(ModelConfig, about.model)
        about.train = SimpleNamespace(length=about.train_length)
        about.parent = SimpleNamespace(base_length=about.base_length)
        # transformers builds models without memory, but a scheme may compute constants when it is built
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            self.decoder: Any = build_model(about, config.vocab_size)  # type: ignore[arg-type]
        self.decoder.scheme.progress(1.0)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Do nothing: all weights are in the folder."""

    @property
    def cacheable(self) -> bool:
        """Whether keys and values of the past can be cached: neither its length nor a state may enter what follows."""
        scheme, first = self.decoder.scheme, self.decoder.blocks[0]
        stable = scheme.prefix_stable and not scheme.reads_text and self.decoder.mixer is None
        return stable and first.attention.short_conv is None

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """Generate as transformers does, with a cache if `cacheable`."""
        return super().generate(*inputs, **{"use_cache": self.cacheable, **options})  # type: ignore[misc]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, [B, N, V] float32, of tokens behind those in the cache; of the last `logits_to_keep` unless 0.

        Raises ValueError for padding, and for a cache if the model is not `cacheable`; Misuse past the longest input.
        """
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("padding is not supported, since positions count from the first token: use equal lengths")
        past = past_key_values
        hidden_BND = self.decoder(input_ids) if past is None else self.behind(past, input_ids)
        logits_BNV = self.decoder.logits(hidden_BND[:, -logits_to_keep:])
        loss = None if labels is None else self.loss_function(logits_BNV, labels, self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits_BNV, past_key_values=past)

    def behind(self, past: Any, tokens_BN: Tensor) -> Tensor:
        """Return the hidden states of tokens behind those in the cache, [B, N, D], and add the tokens to the cache."""
        decoder, scheme, (B, N) = self.decoder, self.decoder.scheme, tokens_BN.shape
        if not self.cacheable:
            raise ValueError(f"{scheme.fingerprint()} computes the whole text for every token: set use_cache=False")
        T = past.get_seq_length() + N
        if scheme.max_length is not None and scheme.max_length < T:
            raise Misuse(f"{scheme.fingerprint()} is undefined past {scheme.max_length} tokens, got a text of {T}")
        pos_BT = scheme.positions(B, T, tokens_BN.device)
        x_BND = scheme.embed(decoder.embedding(tokens_BN) / EMBEDDING_STD, pos_BT[:, -N:])
        for index, block in enumerate(decoder.blocks):
            x_BND = block(x_BND, partial(self.attend, index, past, pos_BT))
        return decoder.norm(x_BND)

    def attend(
        self, index: int, past: Any, pos_BT: Tensor, q_BHNC: Tensor, k_BHNC: Tensor, v_BHNC: Tensor, x_BTD: Tensor
    ) -> Tensor:
        """Return the mixture of visible values in block `index`, [B, H, N, C].

        Keys are cached before rotation. A scheme that reads content also needs the block's input for all tokens, which
        is cached beside the values. The queries of the past are no longer needed, and zero.
        """
        scheme, window = self.decoder.scheme.layer(index), self.decoder.window.layer(index)
        H, N, T = q_BHNC.shape[1], q_BHNC.shape[2], pos_BT.shape[1]
        if reads := scheme.acts("attend"):
            v_BHNC = torch.cat((v_BHNC, x_BTD.unflatten(2, (H, -1)).transpose(1, 2)), dim=-1)
        k_BHTC, v_BHTC = past.update(k_BHNC, v_BHNC, index)
        if k_BHTC.shape[2] != T:
            raise ValueError(f"{type(past).__name__} does not keep the whole text: use a DynamicCache, the default")
        if reads:
            v_BHTC, x_BHTC = v_BHTC.chunk(2, dim=-1)
            x_BTD = x_BHTC.transpose(1, 2).flatten(2)
        q_BHTC = F.pad(q_BHNC, (0, 0, T - N, 0))
        last = None if N == T else N
        return attention(scheme, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window, last=last)
