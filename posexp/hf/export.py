"""The command posexp export: a trained run as a folder that transformers loads, if it has the same architecture.

<results>/<group>/<run>/export/
    config.json                             of LlamaForCausalLM, MistralForCausalLM or Qwen3ForCausalLM
    model.safetensors                       the run's weights under the names of transformers
    tokenizer.json, tokenizer_config.json   the run's tokens

The export needs no transformers. Shape suffixes: V vocabulary, D width of the residual stream, C channels of a head.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posexp import transforms
from posexp.config.commands import ExportCommand, TrainCommand
from posexp.errors import Inapplicable, Misuse, RunFailed
from posexp.model.base import BASE_WIDTH, Model
from posexp.model.decoder import Block, Decoder, SwiGLU
from posexp.runs.experiment import Experiment
from posexp.runs.load import finished_runs, for_each
from posexp.runs.run import Run
from posexp.schemes import EMBEDDING_STD
from posexp.schemes.rope import Layout, Rope
from posexp.storage import atomic, untrusted
from posexp.windows.sliding import Sliding

EXPORTS = "RoPE over all channels of a head, with model.mlp=swiglu and a full or sliding window, can be exported"


def export(command: ExportCommand) -> list[Path]:
    """Write a folder for every finished run that `command` names; print and return the paths.

    Raises Misuse if there is no such run, or if no run has an equal in transformers; RunFailed if some runs failed.
    """
    finished = finished_runs(command.results, command.group, command.runs)
    if command.folder is not None and len(finished) > 1:
        raise Misuse(
            f"folder={command.folder} is for one run, and {len(finished)} match: name one run or remove folder"
        )
    paths: list[Path] = []
    for_each(finished, lambda run: paths.append(export_run(run, command)), "exported")
    return paths


def export_run(run: Run, command: ExportCommand) -> Path:
    """Write the export of one run, print its folder and return it. Raises RunFailed if it cannot be written."""
    experiment = Experiment(run, torch.device("cpu"), command.cache, command.trust)
    contents: dict[str, str | bytes] = {
        "config.json": text_of(config_of(run, experiment.config, experiment.model)),
        "tokenizer.json": tokenizer_of(experiment),
        "tokenizer_config.json": text_of({"tokenizer_class": "PreTrainedTokenizerFast"}),
        "model.safetensors": safetensors_of(experiment.model),
    }
    folder = run.folder / "export" if command.folder is None else Path(command.folder).expanduser()
    check_own(folder, run)
    try:
        atomic.write_all(folder, contents)
    except OSError as error:
        raise RunFailed(f"cannot write to {folder}: {error.strerror}; set folder=<a folder you own>") from error
    print(folder)
    return folder


def text_of(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2) + "\n"


def tokenizer_of(experiment: Experiment) -> bytes:
    """Return tokenizer.json of the run, or of its token store if the run's file is damaged or missing."""
    run = experiment.run
    own, about = run.folder / "tokenizer.json", run.folder / "provenance.json"
    written = run.provenance().get("tokenizer_sha256") if about.is_file() else None
    try:
        if own.is_file():
            content = untrusted.read_bytes(own)
            if written in (None, hashlib.sha256(content).hexdigest()):
                return content
        return untrusted.read_bytes(experiment.store.tokenizer_path)
    except (OSError, ValueError) as error:
        raise RunFailed(f"{own} cannot be read: {error}") from error


def check_own(folder: Path, run: Run) -> None:
    """Raise Misuse if `folder` has any content but an earlier export of the run."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        of = untrusted.json_of(untrusted.read_bytes(folder / "config.json")).get("posexp_run")
    except (OSError, ValueError, AttributeError):
        of = None
    if of != run.name:
        raise Misuse(f"folder={folder} holds something else already: choose another folder")


def config_of(run: Run, trained: TrainCommand, model: Model) -> dict[str, Any]:
    """Return the content of config.json. Raises Inapplicable if transformers has no equal architecture."""
    scheme, window, sizes = model.scheme, model.window, trained.model
    if not isinstance(model, Decoder):
        raise Inapplicable(f"model.target={sizes.target} has no equal in transformers: {EXPORTS}")
    if model.mixer is not None:
        raise Inapplicable(f"mixer {model.mixer.fingerprint()} has no equal in transformers: {EXPORTS}")
    if type(scheme) is not Rope or scheme.fraction != 1:
        raise Inapplicable(f"{scheme.fingerprint()} has no equal in transformers: {EXPORTS}")
    if not window.full and type(window) is not Sliding:
        raise Inapplicable(f"window {window.fingerprint()!r} has no equal in transformers: {EXPORTS}")
    first = model.blocks[0]
    assert isinstance(first, Block)
    mlp = first.mlp
    if not isinstance(mlp, SwiGLU):
        raise Inapplicable(f"model.mlp={sizes.mlp.value} has no equal in transformers: {EXPORTS}")
    for option, value in (("attention_gate", sizes.attention_gate.value), ("short_conv", sizes.short_conv)):
        if value not in ("none", 0):
            raise Inapplicable(f"model.{option}={value} has no equal in transformers: {EXPORTS}")
    seen: dict[str, Any] = {} if window.full else {"sliding_window": window.size}
    kind = "Llama" if window.full else "Mistral"
    if sizes.qk_norm:
        kind = "Qwen3"
        seen |= {"use_sliding_window": not window.full, "max_window_layers": sizes.n_layer if window.full else 0}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": scheme.base}
    if trained.transform is not None:
        transform = transforms.from_config(trained.transform, scheme.dims)
        before = rope | {"rope_theta": trained.scheme.get("base", scheme.base)}
        rope = transform.rope_parameters(before, scheme.rotary_dim, trained.train.length)
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "posexp_run": run.name,
        "vocab_size": model.embedding.num_embeddings,
        "hidden_size": sizes.d_model,
        "intermediate_size": mlp.out.in_features,
        "num_hidden_layers": sizes.n_layer,
        "num_attention_heads": sizes.n_head,
        "num_key_value_heads": sizes.n_kv_head or sizes.n_head,
        "head_dim": scheme.rotary_dim,
        "hidden_act": "silu",
        "max_position_embeddings": trained.train.length,
        "rms_norm_eps": torch.finfo(torch.float32).eps,  # the default of torch.nn.RMSNorm
        "rope_parameters": rope,
        "rope_theta": rope["rope_theta"],  # for transformers before version 5
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": "float32",
        **seen,
    }


def safetensors_of(model: Model) -> bytes:
    """Return the weights as safetensors; the factors of the decoder's input and output are multiplied into them."""
    from safetensors.torch import save

    assert isinstance(model, Decoder) and isinstance(model.scheme, Rope)
    embedding_VD = model.embedding.weight.detach()
    found: dict[str, Tensor] = {
        "model.embed_tokens.weight": embedding_VD / EMBEDDING_STD,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": embedding_VD * (BASE_WIDTH / model.embedding.embedding_dim),
    }
    # the order of a head's channels in which channel i rotates with channel i + C/2
    order_C = torch.arange(model.scheme.rotary_dim)
    if model.scheme.layout is not Layout.half:
        order_C = torch.cat((order_C[0::2], order_C[1::2]))
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block) and isinstance(block.mlp, SwiGLU)
        shared = block.attention.n_kv_head * len(order_C)  # rows of keys, and of values
        q, k, v = block.attention.qkv.weight.split((block.attention.out.in_features, shared, shared))
        gate, up = block.mlp.gate_and_up.weight.chunk(2)
        of_block = {
            "input_layernorm": block.norm_attention.weight,
            "self_attn.q_proj": q.unflatten(0, (-1, len(order_C)))[:, order_C].flatten(0, 1),
            "self_attn.k_proj": k.unflatten(0, (-1, len(order_C)))[:, order_C].flatten(0, 1),
            "self_attn.v_proj": v,
            "self_attn.o_proj": block.attention.out.weight,
            "post_attention_layernorm": block.norm_mlp.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.mlp.out.weight,
        }
        for name, norm in (("q_norm", block.attention.norm_q), ("k_norm", block.attention.norm_k)):
            if isinstance(norm, torch.nn.RMSNorm):
                of_block[f"self_attn.{name}"] = norm.weight[order_C]
        found |= {f"model.layers.{index}.{name}.weight": weight for name, weight in of_block.items()}
    tensors = {name: weight.detach().clone().contiguous() for name, weight in found.items()}
    return save(tensors, metadata={"format": "pt"})
