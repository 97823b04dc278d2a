"""Small checkpoints of transformers, with random weights and a byte-level tokenizer, to evaluate."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from posexp.data import tokenizer
from posexp.hf.quiet import quiet

V = 256
SIZES = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 1, "max_position_embeddings": 64}
NO_SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
OLD = {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 2}  # the words of the first architectures
# class of the config, and what differs from its defaults
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {**OLD, "n_positions": 2048}),
    "gpt2-short": ("GPT2Config", {**OLD, "n_positions": 128}),
    "gptj": ("GPTJConfig", {**OLD, "n_positions": 128, "rotary_dim": 8}),
    "gpt-neo": ("GPTNeoConfig", {
        "vocab_size": V, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 128,
        "attention_types": [[["global", "local"], 1]], "window_size": 16,
    }),
    "opt": ("OPTConfig", {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128}),
    "roberta": ("RobertaConfig", {
        **SIZES, "intermediate_size": 48, "max_position_embeddings": 130, "is_decoder": True, "pad_token_id": 1,
    }),
    "bert": ("BertConfig", {**SIZES, "intermediate_size": 48}),
    "t5": ("T5Config", {"vocab_size": V, "d_model": 32, "num_layers": 1, "num_heads": 2, "d_ff": 48, "d_kv": 16}),
    "gpt-neox": ("GPTNeoXConfig", {**SIZES, "intermediate_size": 48, "max_position_embeddings": 64}),
    "bloom": ("BloomConfig", {**OLD, "hidden_size": 32}),
    "mpt": ("MptConfig", {"vocab_size": V, "d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 64}),
    "mamba": ("MambaConfig", {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2}),
    "llama": ("LlamaConfig", LLAMA),
    "llama-more": ("LlamaConfig", {**LLAMA, "vocab_size": V + 1}),  # a token beside the bytes
    "mistral": ("MistralConfig", {**LLAMA, "sliding_window": None}),
    "mistral-one": ("MistralConfig", {**LLAMA, "sliding_window": None, "num_hidden_layers": 1}),
    "mistral-sliding": ("MistralConfig", {**LLAMA, "sliding_window": 24}),
    "qwen2": ("Qwen2Config", LLAMA),
    "gemma2": ("Gemma2Config", {**LLAMA, "head_dim": 16, "sliding_window": 24, "final_logit_softcapping": 2.0}),
    "uneven": ("Qwen3Config", {**LLAMA, "num_key_value_heads": 4}),  # more than there are heads
    "wide": ("MistralConfig", {**LLAMA, "sliding_window": 100}),  # longer than the inputs of training
    "mixtral": ("MixtralConfig", {**LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": None}),
    "recurrent": ("RecurrentGemmaConfig", {
        **SIZES, "num_hidden_layers": 3, "intermediate_size": 96, "lru_width": 32, "attention_window_size": 24,
        "num_key_value_heads": 1,
    }),
    "falcon": ("FalconConfig", {**SIZES, "alibi": True, "new_decoder_architecture": False, "parallel_attn": False}),
    "granite": ("GraniteMoeHybridConfig", {
        **SIZES, "position_embedding_type": "nope", "layer_types": ["attention"] * 2, "num_local_experts": 0,
        "num_experts_per_tok": 0, "intermediate_size": 48, "shared_intermediate_size": 48, "num_key_value_heads": 2,
        "mamba_n_heads": 4, "mamba_d_head": 16,
    }),
    "llama4": ("Llama4TextConfig", {
        **LLAMA, "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 16, "head_dim": 16,
        "layer_types": ["chunked_attention", "full_attention"], "moe_layers": [],
    }),
    "phi3": ("Phi3Config", LLAMA),
    "pair": ("LlamaConfig", {**LLAMA, "head_dim": 2}),
    "cohere": ("CohereConfig", {**LLAMA, "logit_scale": 0.25}),
}  # fmt: skip


@functools.cache
def checkpoint(root: Path, name: str) -> Path:
    """The folder of one of MODELS, made once below `root`."""
    kind, values = MODELS[name]
    folder = root / name
    torch.manual_seed(0)
    with quiet():
        # far from uniform attention, so that positions and windows show in the losses
        config = getattr(transformers, kind)(**NO_SPECIAL | values)
        made = model_class(config)(config).float()
        for weight in made.parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.25)
        made.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.single_bytes().to_str())
    return folder


def model_class(config: Any) -> Any:
    mapping = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    return mapping.get(type(config), transformers.T5ForConditionalGeneration)


def reference(folder: Path, **changes: Any) -> Any:
    """The checkpoint as transformers loads it, with changes to its config."""
    with quiet():
        config = AutoConfig.from_pretrained(folder)
        for key, value in changes.items():
            setattr(config, key, value)
        return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()


@torch.no_grad()
def own_losses(model: Any, ids: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Loss of every target by transformers alone, one window at a time."""
    found = []
    for start, first, stop in windows.tolist():
        text = torch.from_numpy(ids[start:stop].astype(np.int64))
        with quiet():
            logits = model(input_ids=text[None, :-1]).logits[0].float()
        found.append(F.cross_entropy(logits, text[1:], reduction="none")[first - start - 1 :])
    return torch.cat(found).numpy()


def whole(length: int, count: int = 2) -> np.ndarray:
    """Windows that are scored from their second token on."""
    return np.array([[n * length, n * length + 1, n * length + length + 1] for n in range(count)])


def slid(length: int, stride: int, count: int = 3) -> np.ndarray:
    """A first window, and others of which the new tokens are scored."""
    later = [[n * stride, length + 1 + (n - 1) * stride, length + 1 + n * stride] for n in range(1, count)]
    return np.array([[0, 1, length + 1], *later])
