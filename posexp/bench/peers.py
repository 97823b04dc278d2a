"""Decoders of other libraries at posexp's sizes, used as in their documentation. Requires posexp[peers].

MLP widths are chosen for equal parameter counts. Dropout is zero, generation caches are off, and position tables cover
the longest length. Everything else is each library's default.

Shape suffixes: B batch, T tokens, S tokens and their successor, V vocabulary.
"""

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.bench.models import Contender, Subject
from posexp.config.bench import BenchCommand
from posexp.errors import Misuse
from posexp.model.decoder import SwiGLU
from posexp.model.device import autocast

PACKAGES = {"transformers": "transformers", "x_transformers": "x-transformers"}  # module: package


def check_peers() -> None:
    """Raise Misuse if a package is missing."""
    if missing := [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]:
        raise Misuse(f"--peers needs {' and '.join(missing)}: pip install 'posexp[peers]'")


def build_peer(contender: Contender, command: BenchCommand, device: torch.device) -> Subject:
    """Build another library's decoder. Raises whatever the library or a nanoGPT checkout's model.py raises."""
    make = partial(nanogpt, Path(contender.checkout)) if contender.checkout else LIBRARIES[contender.name]
    model, path = make(command)
    model.to(device)

    def losses(tokens_BT: Tensor, targets_BT: Tensor, reduction: str = "mean") -> Tensor:
        # nanoGPT returns the logits of all tokens only if it gets targets
        output = model(tokens_BT, targets_BT.contiguous())[0] if contender.checkout else model(tokens_BT)
        logits_BTV = getattr(output, "logits", output)
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction=reduction)

    def read(ids_S: Tensor) -> None:
        ids_BS = ids_S.to(device)[None]
        model.eval()
        with torch.no_grad(), autocast(command.precision, device):
            losses(ids_BS[:, :-1], ids_BS[:, 1:], "none").cpu()

    head: Any = getattr(model, "lm_head", None) or model.to_logits
    return Subject(model, losses, read, head.weight, path)


def sizes(command: BenchCommand, *names: str) -> dict[str, Any]:
    """Return d_model, n_layer, n_head and the longest length under a library's names."""
    m, longest = command.model, max(command.length, *command.lengths)
    return dict(zip(names, (m.d_model, m.n_layer, m.n_head, longest), strict=True))


def from_transformers(
    model_class: str, names: tuple[str, ...], command: BenchCommand, swiglu: bool = False, **options: Any
) -> tuple[nn.Module, str]:
    """Return a model of transformers and its attention path. `names` are those of `sizes`."""
    import transformers

    if swiglu:
        options["intermediate_size"] = SwiGLU(command.model.d_model).out.in_features
    # the default ids exceed small vocabularies
    options |= {"use_cache": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    architecture: Any = getattr(transformers, model_class)
    config = architecture.config_class(vocab_size=command.vocab_size, **sizes(command, *names), **options)
    return architecture(config), str(config._attn_implementation)


def from_x_transformers(command: BenchCommand, **options: Any) -> tuple[nn.Module, str]:
    from x_transformers import Decoder, TransformerWrapper

    m, flash = command.model, options.get("attn_flash", False)
    options |= {"dim": m.d_model, "depth": m.n_layer, "heads": m.n_head, "attn_dim_head": m.d_model // m.n_head}
    model = TransformerWrapper(
        num_tokens=command.vocab_size,
        max_seq_len=max(command.length, *command.lengths),
        attn_layers=Decoder(**options, verbose=False),
        use_abs_pos_emb=not options.get("alibi_pos_bias", False),  # ALiBi replaces the embedding
    )
    return model, "flash" if flash else "einsum"


def nanogpt(folder: Path, command: BenchCommand) -> tuple[nn.Module, str]:
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # required by the dataclass in model.py
    spec.loader.exec_module(module)
    named = sizes(command, "n_embd", "n_layer", "n_head", "block_size")
    model = module.GPT(module.GPTConfig(vocab_size=command.vocab_size, dropout=0.0, bias=False, **named))
    flash = any(getattr(part, "flash", False) for part in model.modules())
    return model, "sdpa" if flash else "matmul"


HIDDEN = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
GPT2 = ("n_embd", "n_layer", "n_head", "n_positions")
MPT = ("d_model", "n_layers", "n_heads", "max_seq_len")
DROPOUT: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
FALCON: dict[str, Any] = {"alibi": True, "multi_query": False, "parallel_attn": False}  # as falcon-rw-1b
LIBRARIES: dict[str, Callable[[BenchCommand], tuple[nn.Module, str]]] = {
    "transformers Llama (rope)": partial(from_transformers, "LlamaForCausalLM", HIDDEN, swiglu=True),
    "transformers GPT-2 (learned)": partial(from_transformers, "GPT2LMHeadModel", GPT2, **DROPOUT),
    "transformers Falcon (alibi)": partial(from_transformers, "FalconForCausalLM", HIDDEN, **FALCON),
    "transformers MPT (alibi)": partial(from_transformers, "MptForCausalLM", MPT),
    "x-transformers absolute": partial(from_x_transformers, attn_flash=True),
    "x-transformers rotary": partial(from_x_transformers, attn_flash=True, rotary_pos_emb=True),
    "x-transformers rotary, no flash": partial(from_x_transformers, rotary_pos_emb=True),
    "x-transformers xpos": partial(from_x_transformers, attn_flash=True, rotary_xpos=True),
    "x-transformers alibi": partial(from_x_transformers, attn_flash=True, alibi_pos_bias=True),
    "x-transformers alibi, no flash": partial(from_x_transformers, alibi_pos_bias=True),
    "x-transformers t5, no flash": partial(from_x_transformers, rel_pos_bias=True),  # no flash with this bias
}
