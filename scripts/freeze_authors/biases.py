"""Schemes that add a function of positions to the logits.

Shape suffixes: H heads, N distances, Q query positions, K key positions, U buckets, I frequencies, W width of an MLP.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scripts.freeze_authors.common import DISTANCES, Makers, case, drawn, of, plain

HEADS = [1, 2, 6, 8, 12, 16, 20]


def by_distance(source: str, wanted: Any, n_head: int, **rest: Any) -> dict[str, Any]:
    gap_N = rest.pop("gap", DISTANCES)
    d_model = rest.pop("d_model", 2 * n_head)
    return case("distance_bias", source, {"gap": gap_N}, wanted, d_model=d_model, n_head=n_head, **rest)


def last_row(bias_HTT: Tensor, gap_N: list[int]) -> Tensor:
    """Return the bias of the last query at the distances `gap_N`, [H, N]."""
    return bias_HTT[:, -1].flip(-1)[:, gap_N]


def alibi(n_head: int) -> dict[str, Any]:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    gap_N = [0, 1, 2, 1000]
    # Transformers adds slope * key position, which is the same under softmax, so position g gives minus the bias at g.
    wanted_HN = -build_alibi_tensor(torch.ones(1, gap_N[-1] + 1), n_head, torch.float32)[:, 0, gap_N]
    for slope, published in zip((-wanted_HN[:, 1]).tolist(), published_slopes(n_head), strict=True):
        assert math.isclose(slope, published, rel_tol=1e-6)
    source = of("transformers", "models/bloom, build_alibi_tensor (slopes those of ofirpress' get_slopes)")
    return by_distance(source, wanted_HN, n_head, gap=gap_N, tolerance=1e-6)


def partial_alibi(sloped: int, n_head: int) -> dict[str, Any]:
    from x_transformers.x_transformers import AlibiPositionalBias

    gap_N = [0, 1, 2, 100]
    bias_HTT = AlibiPositionalBias(sloped, n_head)(gap_N[-1] + 1, gap_N[-1] + 1)
    source, options = of("x-transformers", "AlibiPositionalBias of some of the heads"), {"share": sloped / n_head}
    return by_distance(source, last_row(bias_HTT, gap_N), n_head, gap=gap_N, options=options, tolerance=1e-6)


def published_slopes(n_head: int) -> list[float]:
    """Return the authors' get_slopes: powers of 2^(-2^(3 - log2 n)), then every other slope of twice as many heads."""
    power = 2 ** math.floor(math.log2(n_head))
    start, between = 2 ** -(2 ** (3 - math.log2(power))), 2 ** -(2 ** (2 - math.log2(power)))
    return [start**h for h in range(1, power + 1)] + [between**h for h in range(1, 2 * (n_head - power), 2)]


def t5_transformers(buckets: int, max_distance: int, n_head: int) -> dict[str, Any]:
    from transformers.models.t5.modeling_t5 import T5Attention, T5Config

    config = T5Config(
        num_heads=n_head,
        d_model=2 * n_head,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=max_distance,
        is_decoder=True,
    )
    table_UH = drawn(buckets, n_head, seed=4)
    attention = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    with torch.no_grad():
        attention.relative_attention_bias.weight.copy_(table_UH)
        bias_HTT = attention.compute_bias(DISTANCES[-1] + 1, DISTANCES[-1] + 1)[0]
    return by_distance(
        of("transformers", "models/t5, compute_bias of a decoder"),
        last_row(bias_HTT, DISTANCES),
        n_head,
        options={"buckets": buckets, "max_distance": max_distance},
        weights={"table_UH": table_UH / 2**0.5},  # posexp scales the table by sqrt(C), with C = 2 here
        tolerance=1e-6,
    )


def t5_x_transformers(n_head: int) -> dict[str, Any]:
    from x_transformers.x_transformers import RelativePositionBias

    table_UH = drawn(32, n_head, seed=5)
    relative = RelativePositionBias(
        scale=2**0.5, causal=True, heads=n_head
    )  # sqrt of the head width, as in x-transformers
    with torch.no_grad():
        relative.relative_attention_bias.weight.copy_(table_UH)
        bias_HTT = relative(DISTANCES[-1] + 1, DISTANCES[-1] + 1)
    source = of("x-transformers", "RelativePositionBias with scale sqrt(2)")
    wanted_HN = last_row(bias_HTT, DISTANCES)
    return by_distance(source, wanted_HN, n_head, weights={"table_UH": table_UH}, tolerance=1e-6)


def cpb(log_distance: bool) -> dict[str, Any]:
    from x_transformers.x_transformers import DynamicPositionBias

    d_model, n_head, W = 24, 3, 6
    module = DynamicPositionBias(W, heads=n_head, depth=2, log_distance=log_distance)
    weights = mlp_weights([1, W, W, n_head], seed=6)
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, (weight, bias) in zip(linears, pairs(weights), strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        bias_HTT = module(DISTANCES[-1] + 1, DISTANCES[-1] + 1)
    return by_distance(
        of("x-transformers", "DynamicPositionBias of depth 2"),
        last_row(bias_HTT, DISTANCES),
        n_head,
        d_model=d_model,
        options={"log_distance": log_distance},
        weights=weights,
    )


def mlp_weights(sizes: list[int], seed: int, scale: float = 0.5) -> dict[str, Tensor]:
    """Return weights of an nn.Sequential `mlp` with an activation after every layer but the last."""
    weights = {}
    for index, (before, after) in enumerate(itertools.pairwise(sizes)):
        weights[f"mlp.{2 * index}.weight"] = drawn(after, before, seed=seed + 10 * index, scale=scale)
        weights[f"mlp.{2 * index}.bias"] = drawn(after, seed=seed + 10 * index + 1, scale=scale)
    return weights


def pairs(weights: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    values = list(weights.values())
    return list(zip(values[0::2], values[1::2], strict=True))


def kerple_log() -> dict[str, Any]:
    """Return a case in which the third head's parameters are below their minimum and so clamped to it."""
    r1_H, r2_H = np.array([0.3, 1.7, 0.001]), np.array([0.9, 0.05, -0.2])
    gap_N = np.array(DISTANCES)
    least = 0.01
    wanted_HN = -np.maximum(r1_H, least)[:, None] * np.log(1 + np.maximum(r2_H, least)[:, None] * gap_N)
    source = "formula of arXiv 2205.09921 (KERPLE-log), least values as in chijames/KERPLE"
    return by_distance(source, wanted_HN, 3, weights={"r1_H": r1_H, "r2_H": r2_H})


def kerple_power() -> dict[str, Any]:
    """Return a case in which the third head's parameters are outside their range and so clamped to it."""
    r1_H, r2_H = np.array([0.3, 0.7, 0.001]), np.array([1.3, 0.4, 2.5])
    gap_N = np.array(DISTANCES)
    wanted_HN = -np.maximum(r1_H, 0.01)[:, None] * gap_N ** np.clip(r2_H, 0.01, 2.0)[:, None]
    source = "formula of arXiv 2205.09921 (KERPLE-power), allowed values as in chijames/KERPLE"
    return by_distance(source, wanted_HN, 3, weights={"r1_H": r1_H, "r2_H": r2_H})


def sandwich(d_model: int, n_head: int) -> dict[str, Any]:
    d = d_model // n_head
    frequency_I = 10000.0 ** (-2 * np.arange(1, d // 2 + 1) / d)  # from 1 on, not from 0
    overlap_N = np.cos(np.array(DISTANCES)[:, None] * frequency_I).sum(-1) - d / 2
    ratio_H = np.arange(1, n_head + 1) * 8 / n_head
    source = "formula of arXiv 2212.10356 (Sandwich), frequencies as in NVIDIA/NeMo"
    return by_distance(source, overlap_N / ratio_H[:, None], n_head, d_model=d_model)


def fire(train_length: int, threshold: float) -> dict[str, Any]:
    """Return a case of FIRE. `threshold` is in training lengths, and its sign does not matter."""
    c, W, n_head, least = 0.25, 32, 3, 1e-6
    weights = mlp_weights([1, W, n_head], seed=7)
    query_Q, key_K = np.array([40, 63, 64, 65, 100, 1000]), np.array([0, 3, 17, 39, 40])

    def stretched(x: Any) -> Any:
        return np.log(np.abs(c * x) + 1)

    end_Q = np.maximum(query_Q, abs(threshold) * train_length)
    share_QK = stretched(query_Q[:, None] - key_K) / (stretched(end_Q)[:, None] + least)
    (first_W1, bias_W), (last_HW, bias_H) = [(a.double().numpy(), b.double().numpy()) for a, b in pairs(weights)]
    hidden_QKW = np.maximum(share_QK[..., None] * first_W1[:, 0] + bias_W, 0)
    wanted_HQK = np.moveaxis(hidden_QKW @ last_HW.T + bias_H, -1, 0)
    return case(
        "bias",
        "formula of arXiv 2310.04418 (FIRE), constants as in chuanyang-Zheng/DAPE",
        {"query": query_Q, "key": key_K},
        wanted_HQK,
        d_model=2 * n_head,
        n_head=n_head,
        train_length=train_length,
        weights={"c": [c], "threshold": [threshold], **plain(weights)},
    )


MAKERS: Makers = {
    "alibi": lambda: [*map(alibi, HEADS), partial_alibi(3, 6)],
    "t5": lambda: [t5_transformers(32, 128, 3), t5_transformers(16, 64, 2), t5_x_transformers(3)],
    "cpb": lambda: [cpb(False), cpb(True)],
    "kerple_log": lambda: [kerple_log()],
    "kerple_power": lambda: [kerple_power()],
    "sandwich": lambda: [sandwich(32, 4), sandwich(36, 3)],
    "fire": lambda: [fire(64, 1.0), fire(400, -0.5)],
}
