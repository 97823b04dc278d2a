"""Reference results from the authors' code, stored by scripts/freeze_authors, and comparisons with them.

This folder has one JSON file per scheme, transforms.json for changes of rotary frequencies, and temperatures.json.
Shape suffixes: B batch (one), H heads, T tokens, P positions, N distances, Q query positions, K key positions,
C channels of a head, D width of the residual stream, X everything in a row.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posexp.attention import attention
from posexp.dims import Dims
from posexp.schemes import Scheme

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """The result of one hook of a scheme for some inputs, computed by the authors' code."""

    source: str
    options: dict[str, Any]  # of the scheme, if they differ from its YAML
    dims: Dims
    weights: dict[str, Any]  # parameters of the scheme, nested lists
    hook: str
    inputs: dict[str, Any]
    wanted: list[Any]
    tolerance: float


def cases(scheme_name: str) -> list[Case]:
    """Return all cases of a scheme. Empty if it has no reference results."""
    path = FOLDER / f"{scheme_name}.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [Case(**{**entry, "dims": Dims(**entry["dims"])}) for entry in entries]


def worst(case: Case, scheme: Scheme) -> float:
    """Return the largest |ours - wanted| / (1 + |wanted|) with the case's weights, infinite if ours is NaN."""
    weights = {name: torch.tensor(value) for name, value in case.weights.items()}
    if unknown := scheme.load_state_dict(weights, strict=False).unexpected_keys:
        raise KeyError(f"{type(scheme).__name__} has no parameter {unknown[0]}")
    with torch.no_grad():
        got_X = HOOKS[case.hook](scheme, {name: torch.tensor(value) for name, value in case.inputs.items()})
    wanted_X = torch.tensor(flat(case.wanted), dtype=torch.float64)
    error_X = (got_X.double() - wanted_X).abs() / (1 + wanted_X.abs())
    return float(error_X.nan_to_num(nan=torch.inf).max())


def flat(values: Any) -> list[float]:
    return [number for value in values for number in flat(value)] if isinstance(values, list) else [values]


def positions_of(scheme: Scheme, inputs: dict[str, Tensor]) -> Tensor:
    """Return the positions that are read from bytes, at evaluation."""
    return scheme.eval().positions_of(inputs["tokens"]).flatten()


def rotate(scheme: Scheme, inputs: dict[str, Tensor]) -> Tensor:
    """Return unscaled logits of one query and one key repeated at every position, for keys up to each query."""
    pos_P = inputs["positions"]
    q_11PC, k_11PC = (inputs[name].expand(1, 1, len(pos_P), -1) for name in ("q", "k"))
    q_11PC, k_11PC = scheme.layer(0).rotate(q_11PC, k_11PC, pos_P[None])
    logits_PP = q_11PC[0, 0].double() @ k_11PC[0, 0].double().T
    return torch.cat([row_P[: index + 1] for index, row_P in enumerate(logits_PP)])


def embed(scheme: Scheme, inputs: dict[str, Tensor]) -> Tensor:
    pos_P = inputs["positions"]
    return scheme.embed(torch.zeros(1, len(pos_P), scheme.dims.d_model), pos_P[None]).flatten()


def distance_bias(scheme: Scheme, inputs: dict[str, Tensor]) -> Tensor:
    bias_HN = scheme.layer(0).distance_bias(inputs["gap"])
    assert bias_HN is not None, f"{type(scheme).__name__} has no bias by distance"
    return bias_HN.flatten()


def bias(scheme: Scheme, inputs: dict[str, Tensor]) -> Tensor:
    bias_1HQK = scheme.layer(0).bias(inputs["query"][None], inputs["key"][None])
    assert bias_1HQK is not None, f"{type(scheme).__name__} has no bias by position"
    return bias_1HQK.flatten()


def attend(scheme: Scheme, inputs: dict[str, Tensor]) -> Tensor:
    """Return the output of causal attention over tokens at positions 0, 1, 2, …"""
    q_1HTC, k_1HTC, v_1HTC, x_1TD = (inputs[name][None] for name in ("q", "k", "v", "x"))
    pos_1T = torch.arange(x_1TD.shape[1])[None]
    return attention(scheme.layer(0), q_1HTC, k_1HTC, v_1HTC, pos_1T, x_1TD).flatten()


HOOKS: dict[str, Callable[[Scheme, dict[str, Tensor]], Tensor]] = {
    hook.__name__: hook for hook in (positions_of, rotate, embed, distance_bias, bias, attend)
}
