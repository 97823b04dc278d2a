"""Mixers: the recurrences alone and whole layers, of published code, written to tests/support/mixers.json.

    PYTHONPATH=/tmp/peers:<folder with a checkout of state-spaces/mamba> python -m scripts.freeze_authors.mixers

Inputs are longer than a chunk of posexp's. Shape suffixes: T tokens, H heads, K channels of a key, V of a value or of a
head, N rows of a state, D width of the residual stream.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.freeze_authors.common import drawn, lone_module, of, plain

FILE = Path(__file__).parent.parent.parent / "tests" / "support" / "mixers.json"
MAMBA = "state-spaces/mamba e9594ce"
T, H, K, V = 70, 2, 3, 4
D = 8


def gated_delta_rule() -> dict[str, Any]:
    naive = lone_module("fla", "ops/gated_delta_rule/naive.py")
    q_THK, k_THK = (F.normalize(drawn(T, H, K, seed=seed), dim=-1).mul(1000).round() / 1000 for seed in (60, 61))
    v_THV = drawn(T, H, V, seed=62)
    log_TH, strength_TH = -drawn(T, H, seed=63).abs() / 10, drawn(T, H, seed=64).sigmoid().mul(1000).round() / 1000
    parts = [x[None] for x in (q_THK, k_THK, v_THV, strength_TH, log_TH)]
    wanted_1THV, _ = naive.naive_recurrent_gated_delta_rule(*parts)
    inputs = {"q": q_THK, "k": k_THK, "v": v_THV, "log": log_TH, "strength": strength_TH}
    source = of("flash-linear-attention", "ops/gated_delta_rule/naive.py, naive_recurrent_gated_delta_rule")
    return {"rule": "gated_delta_rule", "source": source, "inputs": plain(inputs), "wanted": plain(wanted_1THV[0])}


def scan() -> dict[str, Any]:
    kernels = ModuleType("mamba_ssm.ops.triton.ssd_combined")  # imported there, but not used
    kernels.mamba_chunk_scan_combined = None  # type: ignore[attr-defined]
    for name in ("mamba_ssm.ops", "mamba_ssm.ops.triton"):
        sys.modules[name] = ModuleType(name)
    sys.modules[kernels.__name__] = kernels
    minimal = lone_module("mamba_ssm", "modules/ssd_minimal.py")
    x_THV, b_TN, c_TN = drawn(T, H, V, seed=65), drawn(T, K, seed=66), drawn(T, K, seed=67)
    log_TH = -drawn(T, H, seed=68).abs() / 10
    b_THN, c_THN = (x_TN[:, None].expand(-1, H, -1) for x_TN in (b_TN, c_TN))
    wanted_1THV, _ = minimal.ssd_minimal_discrete(*(x[None] for x in (x_THV, log_TH, b_THN, c_THN)), block_len=14)
    inputs = {"x": x_THV, "b": b_TN, "c": c_TN, "log": log_TH}
    source = f"{MAMBA}, modules/ssd_minimal.py, ssd_minimal_discrete"
    return {"rule": "scan", "source": source, "inputs": plain(inputs), "wanted": plain(wanted_1THV[0])}


def layer(name: str, source: str, weights: dict[str, Tensor], theirs: torch.nn.Module, x_TD: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        wanted_TD = theirs.eval()(x_TD[None])[0]
    found = {"mixer": name, "source": of("transformers", source), "heads": H, "x": plain(x_TD)}
    return found | {"weights": plain(weights), "wanted": plain(wanted_TD)}


def mamba2_layer() -> dict[str, Any]:
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Config, Mamba2Mixer

    N = D // 2
    sizes = {"num_heads": H, "head_dim": D // H, "hidden_size": D, "state_size": N, "expand": 1, "n_groups": 1}
    theirs = Mamba2Mixer(Mamba2Config(**sizes, chunk_size=16, num_hidden_layers=1, layer_norm_epsilon=1e-5), 0)
    weights = {
        "inputs.weight": drawn(2 * D + 2 * N + H, D, seed=70),
        "out.weight": drawn(D, D, seed=71),
        "conv.weight": drawn(D + 2 * N, 4, seed=72),
        "conv_bias_X": drawn(D + 2 * N, seed=73),
        "decay.log_rate_H": drawn(H, seed=74),
        "decay.bias_H": drawn(H, seed=75) - 2,
        "skip_H": drawn(H, seed=76),
        "norm.weight": drawn(D, seed=77),
    }
    with torch.no_grad():
        theirs.in_proj.weight.copy_(weights["inputs.weight"])
        theirs.out_proj.weight.copy_(weights["out.weight"])
        theirs.conv1d.weight.copy_(weights["conv.weight"].flip(1)[:, None])
        theirs.conv1d.bias.copy_(weights["conv_bias_X"])
        theirs.A_log.copy_(weights["decay.log_rate_H"])
        theirs.dt_bias.copy_(weights["decay.bias_H"])
        theirs.D.copy_(weights["skip_H"])
        theirs.norm.weight.copy_(weights["norm.weight"])
    return layer("mamba2", "models/mamba2, Mamba2Mixer", weights, theirs, drawn(T, D, seed=78))


def gated_deltanet_layer() -> dict[str, Any]:
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextConfig, Qwen3NextGatedDeltaNet

    C, N = D // (2 * H), D // H  # channels of a key and of a value
    sizes = {"linear_num_value_heads": H, "linear_num_key_heads": H, "linear_key_head_dim": C}
    sizes |= {"linear_value_head_dim": N, "hidden_size": D, "num_hidden_layers": 4}
    theirs = Qwen3NextGatedDeltaNet(Qwen3NextConfig(**sizes, rms_norm_eps=1e-5), 0)
    weights = {
        "inputs.weight": drawn(3 * D + 2 * H, D, seed=80),
        "out.weight": drawn(D, D, seed=81),
        "conv.weight": drawn(2 * D, 4, seed=82),
        "decay.log_rate_H": drawn(H, seed=83),
        "decay.bias_H": drawn(H, seed=84) - 2,
        "norm.weight": drawn(N, seed=85),
    }
    q, k, v, gate, a, b = weights["inputs.weight"].split((D // 2, D // 2, D, D, H, H))
    with torch.no_grad():  # their rows are grouped by head
        heads = [part.unflatten(0, (H, -1)) for part in (q, k, v, gate)]
        theirs.in_proj_qkvz.weight.copy_(torch.cat(heads, dim=1).flatten(0, 1))
        theirs.in_proj_ba.weight.copy_(torch.stack((b, a), dim=1).flatten(0, 1))
        theirs.out_proj.weight.copy_(weights["out.weight"])
        theirs.conv1d.weight.copy_(weights["conv.weight"].flip(1)[:, None])
        theirs.A_log.copy_(weights["decay.log_rate_H"])
        theirs.dt_bias.copy_(weights["decay.bias_H"])
        theirs.norm.weight.copy_(weights["norm.weight"])
    source = "models/qwen3_next, Qwen3NextGatedDeltaNet"
    return layer("gated_deltanet", source, weights, theirs, drawn(T, D, seed=86))


if __name__ == "__main__":
    cases = [make() for make in (gated_delta_rule, scan, gated_deltanet_layer, mamba2_layer)]
    FILE.write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n", encoding="utf-8")
