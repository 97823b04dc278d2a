"""The format of a frozen case, which posexp/check/authors/__init__.py reads.

Shape suffixes: P positions, C channels of a head.
"""

import importlib.util
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent.parent.parent / "posexp" / "check" / "authors"
POSITIONS = [0, 1, 2, 3, 17, 64, 255, 513, 1024, 2047]
DISTANCES = [0, 1, 2, 3, 7, 15, 16, 17, 19, 31, 63, 64, 111, 112, 113, 127, 128, 129, 255, 1000]


def drawn(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    """Return normal float32 numbers rounded to three decimals, which are short and exact in JSON."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale * 1000).round() / 1000


def plain(values: Any) -> Any:
    """Return nested lists of numbers with seven significant digits."""
    if isinstance(values, Tensor):
        values = values.detach().tolist()
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, dict):
        return {name: plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    return float(f"{values:.7g}") if isinstance(values, float) else values


def case(
    hook: str,
    source: str,
    inputs: dict[str, Any],
    wanted: Any,
    *,
    d_model: int,
    n_head: int = 1,
    train_length: int = 64,
    options: dict[str, Any] | None = None,
    weights: dict[str, Any] | None = None,
    tolerance: float = 1e-5,
) -> dict[str, Any]:
    return {
        "source": source,
        "options": options or {},
        "dims": {"d_model": d_model, "n_head": n_head, "n_layer": 1, "train_length": train_length},
        "weights": plain(weights or {}),
        "hook": hook,
        "inputs": plain(inputs),
        "wanted": plain(wanted),
        "tolerance": tolerance,
    }


def logits(q_PC: Tensor, k_PC: Tensor) -> list[Tensor]:
    """Return q . k of every query with the keys at and before its index."""
    return [row_P[: index + 1] for index, row_P in enumerate(q_PC.double() @ k_PC.double().T)]


def query_and_key(C: int) -> tuple[Tensor, Tensor]:
    return drawn(C, seed=1), drawn(C, seed=2)


def everywhere(x_C: Tensor) -> Tensor:
    """Return the same vector at every position up to the last of POSITIONS, [T, C]."""
    return x_C.expand(POSITIONS[-1] + 1, -1).contiguous()


def halves(x_C: Tensor) -> Tensor:
    """Return interleaved channels in the half-split order of posexp."""
    return torch.cat((x_C[0::2], x_C[1::2]))


def of(package: str, where: str) -> str:
    return f"{package} {version(package)}, {where}"


def lone_module(package: str, path: str) -> ModuleType:
    """Import one file of an installed package without the package itself, which may need GPU libraries."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    name = f"{package}_{path}".replace("/", "_").removesuffix(".py")
    file_spec = importlib.util.spec_from_file_location(name, Path(spec.submodule_search_locations[0]) / path)
    assert file_spec is not None and file_spec.loader is not None
    module = importlib.util.module_from_spec(file_spec)
    file_spec.loader.exec_module(module)
    return module


def write(name: str, found: list[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in found)
    (FOLDER / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


Makers = dict[str, Callable[[], list[dict[str, Any]]]]
