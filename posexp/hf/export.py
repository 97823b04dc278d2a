"""The command posexp export: a trained run as a folder that transformers loads.

<results>/<group>/<run>/export/
    config.json                             of LlamaForCausalLM, MistralForCausalLM or Qwen3ForCausalLM, else with code
    model.safetensors                       the run's weights under the names of transformers
    tokenizer.json, tokenizer_config.json   the run's tokens
    modeling_posexp.py, posexp_*.py         the code, if transformers has no such architecture (custom_code.py)

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
from posexp.config.sections import AttentionGate, Mlp
from posexp.errors import Misuse, RunFailed
from posexp.hf.custom_code import code_of, config_with_code
from posexp.model.base import BASE_WIDTH, Model
from posexp.model.decoder import Block, Decoder, SwiGLU
from posexp.runs.experiment import Experiment
from posexp.runs.load import finished_runs, for_each
from posexp.runs.run import Run
from posexp.schemes import EMBEDDING_STD
from posexp.schemes.rope import Layout, Rope
from posexp.storage import atomic, untrusted
from posexp.windows.sliding import Sliding


def export(command: ExportCommand) -> list[Path]:
    """Write a folder for every finished run that `command` names; print and return the paths.

    Raises Misuse if there is no such run, or if all have code from outside posexp; RunFailed if some failed.
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
    config, model = experiment.config, experiment.model
    own = config_of(config, model)
    about = own or config_with_code(config, model)
    contents: dict[str, str | bytes] = {
        **({} if own else code_of(about)),
        "config.json": text_of({**about, **shared_keys(run, config, model)}),
        "tokenizer.json": tokenizer_of(experiment),
        "tokenizer_config.json": text_of({"tokenizer_class": "PreTrainedTokenizerFast"}),
        "model.safetensors": safetensors_of(tensors_of(model) if own else tensors_with_code(model)),
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


def shared_keys(run: Run, trained: TrainCommand, model: Model) -> dict[str, Any]:
    """Return the keys of config.json that every architecture has."""
    return {
        "posexp_run": run.name,
        "vocab_size": model.embedding.num_embeddings,
        "hidden_size": trained.model.d_model,
        "max_position_embeddings": trained.train.length,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": "float32",
    }


def config_of(trained: TrainCommand, model: Model) -> dict[str, Any] | None:
    """Return the keys of config.json in the architecture of transformers that equals the model, None without one."""
    scheme, window, sizes = model.scheme, model.window, trained.model
    rotated = type(scheme) is Rope and scheme.fraction == 1 and model.mixer is None
    plain = sizes.mlp is Mlp.swiglu and sizes.attention_gate is AttentionGate.none and not sizes.short_conv
    if not isinstance(model, Decoder) or not rotated or not plain or not (window.full or type(window) is Sliding):
        return None
    first = model.blocks[0]
    assert isinstance(first, Block) and isinstance(first.mlp, SwiGLU) and isinstance(scheme, Rope)
    seen: dict[str, Any] = {} if window.full else {"sliding_window": window.size}
    kind = "Llama" if window.full else "Mistral"
    if sizes.qk_norm:
        kind = "Qwen3"
        seen |= {"use_sliding_window": not window.full, "max_window_layers": sizes.n_layer if window.full else 0}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": scheme.base}
    if trained.transform is not None:
        transform = transforms.from_config(trained.transform, scheme.dims)
        before = rope | {"rope_theta": trained.scheme.get("base", scheme.base)}
        try:
            rope = transform.rope_parameters(before, scheme.rotary_dim, trained.train.length)
        except transforms.NotApplicable:
            return None
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "intermediate_size": first.mlp.out.in_features,
        "num_hidden_layers": sizes.n_layer,
        "num_attention_heads": sizes.n_head,
        "num_key_value_heads": sizes.n_kv_head or sizes.n_head,
        "head_dim": scheme.rotary_dim,
        "hidden_act": "silu",
        "rms_norm_eps": torch.finfo(torch.float32).eps,  # the default of torch.nn.RMSNorm
        "rope_parameters": rope,
        "rope_theta": rope["rope_theta"],  # for transformers before version 5
        "attention_bias": False,
        "mlp_bias": False,
        **seen,
    }


def tensors_with_code(model: Model) -> dict[str, Tensor]:
    """Return the weights of a model that brings its code, under the names of modeling_posexp.py."""
    return {f"decoder.{name}": tensor for name, tensor in model.state_dict().items()}


def tensors_of(model: Model) -> dict[str, Tensor]:
    """Return the weights as transformers names them; the factors of input and output are multiplied into them."""
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
    return found


def safetensors_of(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    contents = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    return save(contents, metadata={"format": "pt"})
