"""Any causal language model of transformers in two steps: hidden states, and logits only where they are scored.

Shape suffixes: B batch, T tokens, N targets, D width of what the first step gives, V vocabulary.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from posexp.errors import Misuse
from posexp.hf.quiet import quiet
from posexp.hf.source import Source, code_from_outside, elements, why

Pretrained = Any  # a PreTrainedModel of transformers, which is typed in part
Step = Callable[[Tensor], Tensor]

# What architectures call the most tokens that they were made for.
MAXIMA = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
LARGER = 4  # times as many parameters as numbers: packed weights hold several in one
PROBED = 8  # tokens of the inputs that tell how a model works


class CausalLM(nn.Module):
    """posexp's LanguageModel around a model of transformers. Logits are those of the model itself."""

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
        """What `logits` takes, [B, T, D], of tokens (int64), or of the last ones."""
        # Rotary modules of transformers that go by the input's length keep the frequencies of the longest so far.
        for module, attributes, buffers in self.rotary:
            vars(module).update(attributes)
            module._buffers.update(buffers)
        # MPT makes its ALiBi bias up to this length, and refuses longer inputs; the bias has no end.
        longest = getattr(self.model.config, "max_seq_len", None)
        if isinstance(longest, int) and longest < tokens_BT.shape[1]:
            self.model.config.max_seq_len = tokens_BT.shape[1]
        with quiet():
            return self.first(tokens_BT)[:, -(last or tokens_BT.shape[1]) :]

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """[N, V] float32."""
        with quiet():
            return self.second(hidden_ND).float()


def load_causal_lm(source: Source, trust: bool) -> Pretrained:
    """The model, float32 on the CPU, in evaluation mode.

    Raises Misuse if transformers cannot load or run it, its code lies outside transformers and `trust` is not given,
    weights are missing, or tokens see later ones.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    if (kernels := code_from_outside(source.config)) and not trust:
        raise Misuse(f"hf={source.given}: it asks for code from outside transformers, {kernels!r}: say trust=true")
    try:
        with quiet():
            check_size(source, auto, trust)
            model, told = auto.from_pretrained(
                source.folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust,
                local_files_only=True,
                output_loading_info=True,
            )
    except Misuse:
        raise
    except Exception as error:  # whatever a config, its code or the weights make of it
        if "trust_remote_code" in str(error):
            text = "its code comes with the checkpoint, from outside transformers: say trust=true to run it"
            raise Misuse(f"hf={source.given}: {text}") from error
        if "Unrecognized configuration class" in str(error):
            kind = source.config.get("model_type")
            raise Misuse(f"hf={source.given} is no causal language model: its model_type is {kind!r}") from error
        raise Misuse(f"hf={source.given}: transformers cannot load it: {why(error)}") from error
    if missing := sorted(told["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Misuse(
            f"hf={source.given}: its weights lack {missing[0]}{more}, so they are of another model than "
            f"{type(model).__name__}"
        )
    for config in (model.config, text_config(model.config)):
        config.use_cache = False
    model.eval()
    try:
        causal = sees_no_future(model)
    except Exception as error:  # sizes that do not go together, kernels that are missing
        kind = type(model).__name__
        raise Misuse(f"hf={source.given}: transformers loads it as {kind}, and cannot run it: {why(error)}") from error
    if not causal:
        raise Misuse(f"hf={source.given} is no causal language model: in {type(model).__name__} tokens see later ones")
    return model


def check_size(source: Source, auto: Any, trust: bool) -> None:
    """Raises Misuse for a config that describes a larger model than the weights are of: it may ask for any memory.

    The model is built without memory to count its parameters, if it has no more layers than there are tensors.
    """
    from transformers import AutoConfig

    tensors, numbers = elements(source)
    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=trust, local_files_only=True)
    layers = getattr(text_config(config), "num_hidden_layers", 0)
    told = f"hf={source.given}: its config is of a larger model than its weights"
    if not isinstance(layers, int) or layers > tensors:
        raise Misuse(f"{told}: {layers} layers, and {tensors:,} tensors")
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=trust)
    if (wanted := sum(weight.numel() for weight in model.parameters())) > LARGER * numbers:
        raise Misuse(f"{told}: {wanted:,} parameters, and {numbers:,} numbers")


def probe(model: Pretrained) -> Tensor:
    """[2, PROBED] tokens, all different from each other."""
    ids = 5 + 7 * torch.arange(2 * PROBED, device=model.device).view(2, PROBED)
    return ids % text_config(model.config).vocab_size


@torch.no_grad()
def whole_logits(model: Pretrained, tokens_BT: Tensor) -> Tensor:
    """[B, T, V]."""
    with quiet():
        return model(input_ids=tokens_BT).logits


def sees_no_future(model: Pretrained) -> bool:
    tokens_BT = probe(model)
    changed_BT = tokens_BT.clone()
    changed_BT[:, -1] = tokens_BT[:, 0]
    before, after = (whole_logits(model, tokens)[:, :-1] for tokens in (tokens_BT, changed_BT))
    return bool((before - after).abs().max() <= 1e-4 * before.abs().max())


def text_config(config: Any) -> Any:
    """The part of a config that is about text: all of it, in models of text alone."""
    return config.get_text_config()


def two_steps(model: Pretrained) -> tuple[Step, Step]:
    """The body of the model and what makes logits of what it gives, if together they do exactly what the model does.

    Some architectures scale or cap logits after the output layer: then that layer is the rest of the model. If that
    is not it either, all logits are the first step, and there is nothing to do in the second.
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
        except Exception:  # a body that is called otherwise, or gives something else
            continue
    return lambda tokens_BT: model(input_ids=tokens_BT).logits, lambda logits: logits


class Given(nn.Module):
    """In place of a model's body: hands on the hidden states that it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)


def rest_of(model: Pretrained) -> Step:
    """The model without its body."""
    rest = copy.copy(model)
    rest._modules = {**model._modules, model.base_model_prefix: Given()}

    def logits(hidden: Tensor) -> Tensor:
        batched = hidden if hidden.ndim == 3 else hidden[None]
        return rest(inputs_embeds=batched).logits.view(*hidden.shape[:-1], -1)

    return logits


def position_limit(model: Pretrained) -> int | None:
    """The longest input that the model has positions for; None without a limit, as with rotary positions and ALiBi.

    Found by structure: a trained table that is read at the positions of the input, or a buffer, such as a mask, as long
    as the config's maximum. Other buffers may grow with the input, as tables of sines do.
    """
    with Lookups(model) as lookups:
        whole_logits(model, probe(model))
    maxima = maxima_of(model.config)
    for buffer in model.buffers():
        lookups.limits += [size for size in buffer.shape[:-1] if size in maxima]
    return min(lookups.limits, default=None)


class Lookups(TorchFunctionMode):
    """Collects in `limits` how many positions the trained tables have that a model reads at 0, 1, 2, … of a probe.

    What a table is asked for tells it, whatever its name. The first position may come after rows that are reserved, as
    in OPT and RoBERTa.
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
        for size, index in zip(table.shape, indices, strict=False):
            if isinstance(index, slice) and (index.start or 0) == 0 and index.stop == PROBED:
                self.limits.append(size)
            elif isinstance(index, Tensor) and not index.is_floating_point() and index.shape[-1:] == (PROBED,):
                place_T = index.reshape(-1, PROBED)[0]
                if bool((place_T.diff() == 1).all()):
                    self.limits.append(size - int(place_T[0]))


def maxima_of(config: Any) -> list[int]:
    """What the config says of the most tokens it was made for."""
    found = [getattr(text_config(config), name, None) for name in MAXIMA]
    return [value for value in found if isinstance(value, int) and value > 1]
