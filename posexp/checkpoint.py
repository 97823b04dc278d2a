"""Checkpoints: safetensors and JSON, each whole or absent, the last two kept.

checkpoint/step-00000400.safetensors   model.* and optimizer.* tensors
checkpoint/step-00000400.json          step and sha256 of the tensors; written last, so its presence says "whole"
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import nn

from posexp import whole
from posexp.distributed import full, held_like
from posexp.errors import RunFailed

KEPT = 2


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, write: bool = True) -> None:
    """Saves step `step` and lets go of all but the last two. Raises RunFailed, also for numbers that
    are not finite; earlier checkpoints then still stand.

    Processes that train together all call this, and one of them is to `write`.
    """
    found = tensors(model, optimizer, write)
    if not write:
        return
    stem = folder / f"step-{step:08d}"
    aside = stem.with_suffix(".tmp")
    content = {name: tensor.contiguous() for name, tensor in found.items()}
    try:
        check_finite(content)
        folder.mkdir(exist_ok=True)
        save_file(content, aside)
        whole.sync(aside)
        about = {"step": step, "sha256": whole.sha256(aside)}
        os.replace(aside, stem.with_suffix(".safetensors"))
        whole.write(stem.with_suffix(".json"), json.dumps(about))
        whole.sync(folder)
    except Exception as error:  # safetensors raises its own kind when the disk is full
        aside.unlink(missing_ok=True)
        raise RunFailed(f"cannot save {stem}.safetensors: {reason(error)}; earlier checkpoints are kept") from error
    tidy(folder)


def tidy(folder: Path) -> None:
    """Removes all but the last two, and what a process that was killed left half written."""
    kept = {f"step-{step:08d}" for step in steps(folder)[:KEPT]}
    for path in sorted(folder.glob("*")):  # .json before .safetensors
        ours = path.name.startswith(("step-", ".step-", ".tmp"))  # the last are safetensors' own
        if ours and not (path.stem in kept and path.suffix in (".json", ".safetensors")):
            path.unlink(missing_ok=True)


def restore(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest whole checkpoint, {"step", "sha256", "tensors"}; damaged ones are told through `say` and passed by."""
    for step in steps(folder):
        path = folder / f"step-{step:08d}.safetensors"
        try:
            about = json.loads(path.with_suffix(".json").read_text())
            data = path.read_bytes()
            if about["step"] != step or hashlib.sha256(data).hexdigest() != about["sha256"]:
                raise ValueError("its content is not what was saved (truncated or altered)")
            content = load(data)
            check_finite(content)
            return {"step": step, "sha256": about["sha256"], "tensors": content}
        except Exception as error:  # whatever a damaged file makes a parser raise
            say(f"checkpoint {path} is damaged: {reason(error)}; going back to the one before")
    return None


def apply(tensors_: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Puts a checkpoint's tensors into the model, and into the optimizer if one is given.

    Raises RunFailed if they were saved from another architecture.
    """
    weights = {name.removeprefix("model."): t for name, t in tensors_.items() if name.startswith("model.")}
    held = model.state_dict()
    # in the model's order: processes that share a model out do this together
    weights |= {name: held_like(weights[name], tensor) for name, tensor in held.items() if name in weights}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunFailed(f"the checkpoint does not fit the model: {reason(error)}") from error
    if optimizer is None:
        return
    for name, weight in zip(names(model), model.parameters(), strict=True):
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): t for key, t in sorted(tensors_.items()) if key.startswith(prefix)}
        optimizer.state[weight] = {
            key: tensor.to(weight.device) if key == "step" else held_like(tensor, weight)
            for key, tensor in state.items()
        }


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, torch.Tensor]:
    """All that is saved; what several processes hold in parts is put together by all of them, for those that `keep`
    it."""
    parts = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, weight in zip(names(model), model.parameters(), strict=True):
        for key, value in optimizer.state[weight].items():
            parts[f"optimizer.{name}.{key}"] = value
    found = {}
    for name, tensor in parts.items():
        whole_tensor = full(tensor)
        if keep:  # a GPU that holds a part may have no room for the whole
            found[name] = tensor if whole_tensor is tensor else whole_tensor.cpu()
    return found


def check_finite(tensors_: dict[str, torch.Tensor]) -> None:
    """Raises ValueError: whoever went on from such numbers would never get away from them."""
    for name, tensor in tensors_.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def steps(folder: Path) -> list[int]:
    """Steps of which both files are there, newest first."""
    found = []
    for path in folder.glob("step-*.json"):
        number = path.stem.removeprefix("step-")
        if number.isdigit() and path.with_suffix(".safetensors").exists():
            found.append(int(number))
    return sorted(found, reverse=True)


def reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())[:200]
