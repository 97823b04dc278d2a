"""Causal language models of transformers in two steps: hidden states, and logits only where tokens are scored.

Shape suffixes: B batch, T tokens, N targets, D width of hidden states, V vocabulary.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from posexp.data.readers import cause_line
from posexp.data.tokenizer import refused
from posexp.errors import Misuse
from posexp.hf.quiet import quiet
from posexp.hf.source import Source, code_from_outside, elements

Pretrained = Any  # a PreTrainedModel, whose types are incomplete
Step = Callable[[Tensor], Tensor]

# The attributes of configs that hold the maximum number of tokens.
MAXIMA = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
LARGER = 4  # parameters per stored number: packed weights hold several parameters in one number
PROBED = 8  # tokens of a probe


class CausalLM(nn.Module):
    """A model of transformers with the interface LanguageModel. Its logits are exactly those of the model."""

    def __init__(self, model: Pretrained):
        super().__init__()
        self.model = model
        self.max_length = position_limit(model)
        self.first, self.second = two_steps(model)
        self.rotary = [
            (module, dict(vars(module)), dict(module._buffers))
            for module in model.modules()
            if hasattr(module, "max_seq_len_cached")
        ]

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        """Return hidden states [B, T, D] of tokens (int64), or of the `last` tokens."""
        # Rotary modules that depend on the length keep the frequencies of the longest input, so they are reset.
        for module, attributes, buffers in self.rotary:
            vars(module).update(attributes)
            module._buffers.update(buffers)
        # MPT computes its ALiBi bias up to this length and rejects longer inputs, without need.
        longest = getattr(self.model.config, "max_seq_len", None)
        if isinstance(longest, int) and longest < tokens_BT.shape[1]:
            self.model.config.max_seq_len = tokens_BT.shape[1]
        with quiet():
            return self.first(tokens_BT)[:, -(last or tokens_BT.shape[1]) :]

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Return logits [N, V] float32."""
        with quiet():
            return self.second(hidden_ND).float()


def load_causal_lm(source: Source, trust: bool) -> Pretrained:
    """Load the model in float32 on the CPU, in evaluation mode.

    Raises Misuse if transformers cannot load or run it, if it needs external code and `trust` is false, if weights are
    missing, or if the output at a token depends on later tokens.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    if (kernels := code_from_outside(source.config)) and not trust:
        raise Misuse(f"hf={source.given}: its config loads code from outside transformers, {kernels!r}: say trust=true")
    try:
        with quiet():
            check_size(source, auto, trust)
            model, info = auto.from_pretrained(
                source.folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust,
                local_files_only=True,
                output_loading_info=True,
            )
    except Misuse:
        raise
    except Exception as error:  # configs, code and weights fail in many ways
        text = f"transformers cannot load it: {cause_line(error)}"
        if "trust_remote_code" in str(error):
            text = "its code comes with the checkpoint, from outside transformers: say trust=true to run it"
        elif "Unrecognized configuration class" in str(error):
            text = f"it is not a causal language model: its model_type is {source.config.get('model_type')!r}"
        raise Misuse(f"hf={source.given}: {text}") from error
    kind = type(model).__name__
    if missing := sorted(info["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Misuse(f"hf={source.given}: its weights lack {missing[0]}{more}, so they cannot be those of {kind}")
    for config in (model.config, text_config(model.config)):
        config.use_cache = False
    model.eval()
    # sizes may not match, and kernels may be missing
    with refused(f"hf={source.given}: transformers loads it as {kind} but cannot run it"):
        causal = is_causal(model)
    if not causal:
        raise Misuse(f"hf={source.given} is not a causal language model: tokens of {kind} attend to later ones")
    return model


def check_size(source: Source, auto: Any, trust: bool) -> None:
    """Raise Misuse for a config of a larger model than the weights, which could allocate any amount of memory."""
    from transformers import AutoConfig

    tensors, numbers = elements(source)
    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=trust, local_files_only=True)
    layers = getattr(text_config(config), "num_hidden_layers", 0)
    mismatch = f"hf={source.given}: its config describes a larger model than its weights"
    if not isinstance(layers, int) or layers > tensors:
        raise Misuse(f"{mismatch}: {layers} layers, {tensors:,} tensors")
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=trust)
    if (wanted := sum(weight.numel() for weight in model.parameters())) > LARGER * numbers:
        raise Misuse(f"{mismatch}: {wanted:,} parameters, {numbers:,} numbers")


def probe(model: Pretrained) -> Tensor:
    """Return a probe: [2, PROBED] tokens, all different."""
    ids = 5 + 7 * torch.arange(2 * PROBED, device=model.device).view(2, PROBED)
    return ids % text_config(model.config).vocab_size


@torch.no_grad()
def whole_logits(model: Pretrained, tokens_BT: Tensor) -> Tensor:
    """Return the logits of all tokens, [B, T, V]."""
    with quiet():
        return model(input_ids=tokens_BT).logits


def is_causal(model: Pretrained) -> bool:
    """Return whether another last token leaves the earlier logits of a probe unchanged."""
    tokens_BT = probe(model)
    changed_BT = tokens_BT.clone()
    changed_BT[:, -1] = tokens_BT[:, 0]
    before, after = (whole_logits(model, tokens)[:, :-1] for tokens in (tokens_BT, changed_BT))
    return bool((before - after).abs().max() <= 1e-4 * before.abs().max())


def text_config(config: Any) -> Any:
    """Return the part of a config that describes the text model: the whole config in models of text alone."""
    return config.get_text_config()


def two_steps(model: Pretrained) -> tuple[Step, Step]:
    """Return functions for hidden states and for logits that together compute exactly the model.

    The second step is the output layer or, if the architecture scales or caps logits after it, the model without its
    body. If neither is exact, the first step computes all logits and the second is the identity.
    """
    tokens_BT = probe(model)
    expected = whole_logits(model, tokens_BT)
    body = model.base_model

    def hidden(tokens_BT: Tensor) -> Tensor:
        return body(input_ids=tokens_BT).last_hidden_state

    for second in (model.get_output_embeddings(), rest_of(model)):
        try:
            with torch.no_grad(), quiet():
                if body is not model and torch.equal(second(hidden(tokens_BT)), expected):
                    return hidden, second
        except Exception:  # a body with other arguments or outputs
            continue
    return lambda tokens_BT: model(input_ids=tokens_BT).logits, lambda logits: logits


def rest_of(model: Pretrained) -> Step:
    """Return the model without its body, as a function of hidden states."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    def body(*_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)

    rest = copy.copy(model)
    rest._modules = {**model._modules, model.base_model_prefix: body}

    def logits(hidden: Tensor) -> Tensor:
        batched = hidden if hidden.ndim == 3 else hidden[None]
        return rest(inputs_embeds=batched).logits.view(*hidden.shape[:-1], -1)

    return logits


def position_limit(model: Pretrained) -> int | None:
    """Return the longest input that the model has positions for; None without a limit, as with RoPE and ALiBi.

    Limits are the sizes of trained tables that the model reads at the positions of a probe, and of buffers, such as
    masks, that are as long as a maximum of the config. Other buffers, such as tables of sines, may grow.
    """
    with Lookups(model) as lookups:
        whole_logits(model, probe(model))
    maxima = maxima_of(model.config)
    for buffer in model.buffers():
        lookups.limits += [size for size in buffer.shape[:-1] if size in maxima]
    return min(lookups.limits, default=None)


class Lookups(TorchFunctionMode):
    """A mode that collects in `limits` the number of positions of each trained table that is read at 0, 1, 2, ….

    Tables are recognised by their indices, not by name. Reserved rows may precede the first position, as in OPT and
    RoBERTa.
    """

    def __init__(self, model: Pretrained):
        super().__init__()
        self.tables = {id(table) for table in model.parameters()}
        self.limits: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding:
            index, table = args if len(args) >= 2 else (args[0], kwargs["weight"])
            self.note(table, [index])
        elif func is Tensor.__getitem__ and id(args[0]) in self.tables:
            self.note(args[0], args[1] if isinstance(args[1], tuple) else [args[1]])
        elif func in (torch.index_select, Tensor.index_select) and id(args[0]) in self.tables:
            self.note(args[0], [slice(None)] * args[1] + [args[2]])
        return func(*args, **kwargs)

    def note(self, table: Tensor, indices: Any) -> None:
        """Add the number of positions of `table` if `indices` are those of a probe."""
        for size, index in zip(table.shape, indices, strict=False):
            if isinstance(index, slice) and (index.start or 0) == 0 and index.stop == PROBED:
                self.limits.append(size)
            elif isinstance(index, Tensor) and not index.is_floating_point() and index.shape[-1:] == (PROBED,):
                place_T = index.reshape(-1, PROBED)[0]
                if bool((place_T.diff() == 1).all()):
                    self.limits.append(size - int(place_T[0]))


def maxima_of(config: Any) -> list[int]:
    """Return the maximum numbers of tokens that the config states."""
    found = [getattr(text_config(config), name, None) for name in MAXIMA]
    return [value for value in found if isinstance(value, int) and value > 1]
