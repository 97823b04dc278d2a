"""Decoders of other libraries at posexp's sizes, used as in their documentation. Requires posexp[peers].

MLP widths are chosen for equal parameter counts. Dropout is zero, generation caches are off, and position tables cover
the longest length. Everything else is each library's default.

Shape suffixes: B batch, T tokens, S tokens and their successor, V vocabulary.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.bench.models import Build, Contender, Settings, Subject
from posexp.config.sections import Precision
from posexp.errors import Misuse
from posexp.model.decoder import SwiGLU
from posexp.model.device import autocast

PACKAGES = {"transformers": "transformers", "x_transformers": "x-transformers"}  # module: package
Make = Callable[[Settings], tuple[nn.Module, str]]


def check_peer() -> None:
    """Raise Misuse if a package is missing."""
    if missing := [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]:
        raise Misuse(f"--peers needs {' and '.join(missing)}: pip install 'posexp[peers]'")


def names() -> list[str]:
    return list(LIBRARIES)


def load_peer(contender: Contender) -> Build:
    make = nanogpt(Path(contender.checkout)) if contender.checkout else LIBRARIES[contender.name]()

    def build(settings: Settings, device: torch.device, precision: Precision) -> Subject:
        model, path = make(settings)
        model.to(device)

        def loss(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
            return F.cross_entropy(logits_of(model, tokens_BT, targets_BT).flatten(0, 1), targets_BT.flatten())

        def read(ids_S: Tensor) -> None:
            ids_BS = ids_S.to(device)[None]
            with torch.no_grad(), autocast(precision, device):
                logits_BTV = logits_of(model.eval(), ids_BS[:, :-1], ids_BS[:, 1:])
                F.cross_entropy(logits_BTV.flatten(0, 1), ids_BS[:, 1:].flatten(), reduction="none").cpu()

        return Subject(model, loss, read, head_of(model), path)

    return build


def logits_of(model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return logits, [B, T, V], of any library. nanoGPT returns those of all tokens only if it gets targets."""
    nano = type(model).__name__ == "GPT"
    output = model(tokens_BT, targets_BT.contiguous())[0] if nano else model(tokens_BT)
    return getattr(output, "logits", output)


def head_of(model: nn.Module) -> Tensor:
    for name in ("lm_head", "to_logits"):
        if isinstance(weight := getattr(getattr(model, name, None), "weight", None), Tensor):
            return weight
    raise ValueError(f"{type(model).__name__} has no output layer of a known name")


def sizes(settings: Settings, *names: str) -> dict[str, Any]:
    """Return d_model, n_layer, n_head and the longest length under a library's names."""
    m = settings.model
    return dict(zip(names, (m.d_model, m.n_layer, m.n_head, settings.longest), strict=True))


def from_transformers(kind: str, names: tuple[str, ...], swiglu: bool = False, **options: Any) -> Make:
    """Import the architecture `kind` of transformers and return its builder. `names` are those of `sizes`."""
    import transformers

    causal, head = (getattr(transformers, f"{kind}{ending}", None) for ending in ("ForCausalLM", "LMHeadModel"))
    model_class: Any = causal or head
    # the default ids exceed small vocabularies
    options |= {"use_cache": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}

    def make(settings: Settings) -> tuple[nn.Module, str]:
        width = {"intermediate_size": SwiGLU(settings.model.d_model).out.in_features} if swiglu else {}
        named = {"vocab_size": settings.vocab_size, **sizes(settings, *names), **width, **options}
        model = model_class(getattr(transformers, f"{kind}Config")(**named))
        return model, str(model.config._attn_implementation)

    return make


def from_x_transformers(**options: Any) -> Make:
    from x_transformers import Decoder, TransformerWrapper

    def make(settings: Settings) -> tuple[nn.Module, str]:
        m = settings.model
        layers = Decoder(
            dim=m.d_model,
            depth=m.n_layer,
            heads=m.n_head,
            attn_dim_head=m.d_model // m.n_head,
            verbose=False,
            **options,
        )
        alone = {"use_abs_pos_emb": not options.get("alibi_pos_bias", False)}  # ALiBi replaces the embedding
        model = TransformerWrapper(
            num_tokens=settings.vocab_size, max_seq_len=settings.longest, attn_layers=layers, **alone
        )
        return model, "flash" if options.get("attn_flash") else "einsum"

    return make


def nanogpt(folder: Path) -> Make:
    """Import a checkout's model.py and return its builder. Raises whatever model.py raises."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # required by the dataclass in model.py
    spec.loader.exec_module(module)

    def make(settings: Settings) -> tuple[nn.Module, str]:
        named = sizes(settings, "n_embd", "n_layer", "n_head", "block_size")
        model = module.GPT(module.GPTConfig(vocab_size=settings.vocab_size, dropout=0.0, bias=False, **named))
        flash = any(getattr(part, "flash", False) for part in model.modules())
        return model, "sdpa" if flash else "matmul"

    return make


HIDDEN = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
GPT2 = ("n_embd", "n_layer", "n_head", "n_positions")
MPT = ("d_model", "n_layers", "n_heads", "max_seq_len")
DROPOUT: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
LIBRARIES: dict[str, Callable[[], Make]] = {
    "transformers Llama (rope)": lambda: from_transformers("Llama", HIDDEN, swiglu=True),
    "transformers GPT-2 (learned)": lambda: from_transformers("GPT2", GPT2, **DROPOUT),
    "transformers Falcon (alibi)": lambda: from_transformers(  # as falcon-rw-1b, the only Falcon with ALiBi
        "Falcon", HIDDEN, alibi=True, multi_query=False, parallel_attn=False
    ),
    "transformers MPT (alibi)": lambda: from_transformers("Mpt", MPT),
    "x-transformers absolute": lambda: from_x_transformers(attn_flash=True),
    "x-transformers rotary": lambda: from_x_transformers(attn_flash=True, rotary_pos_emb=True),
    "x-transformers rotary, no flash": lambda: from_x_transformers(rotary_pos_emb=True),
    "x-transformers xpos": lambda: from_x_transformers(attn_flash=True, rotary_xpos=True),
    "x-transformers alibi": lambda: from_x_transformers(attn_flash=True, alibi_pos_bias=True),
    "x-transformers alibi, no flash": lambda: from_x_transformers(alibi_pos_bias=True),
    "x-transformers t5, no flash": lambda: from_x_transformers(rel_pos_bias=True),  # no flash with this bias
}
