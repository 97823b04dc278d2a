"""Checkpoints: safetensors and JSON, each whole or absent, the last two kept.

checkpoint/step-00000400.safetensors   model.* and optimizer.* tensors
checkpoint/step-00000400.json          step and sha256 of the tensors; written last, so its presence says "whole"
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from posexp.errors import RunFailed
from posexp.storage import atomic, untrusted

KEPT = 2
MOST_BYTES = 1 << 40  # of one
STATE = {"step", "exp_avg", "exp_avg_sq"}  # that AdamW has of each weight

Shapes = dict[str, tuple[int, ...]]


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
        atomic.sync(aside)
        about = {"step": step, "sha256": atomic.sha256(aside)}
        os.replace(aside, stem.with_suffix(".safetensors"))
        atomic.write_file(stem.with_suffix(".json"), json.dumps(about))
        atomic.sync(folder)
    except Exception as error:  # safetensors raises its own kind when the disk is full
        aside.unlink(missing_ok=True)
        raise RunFailed(
            f"cannot save {stem}.safetensors: {damage_reason(error)}; earlier checkpoints are kept"
        ) from error
    set_aside(folder, step)
    tidy(folder)


def set_aside(folder: Path, step: int) -> None:
    """Renames the checkpoints of later steps than `step`, which was saved after them. They are damaged: training went
    back before them. Under their names they would count among the last two."""
    for later in steps(folder):
        if later > step:
            for suffix in (".json", ".safetensors"):
                path = folder / f"step-{later:08d}{suffix}"
                path.replace(path.with_name(f"damaged-{path.name}"))


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
            about = untrusted.json_of(untrusted.read_bytes(path.with_suffix(".json")))
            data = untrusted.read_bytes(path, MOST_BYTES)
            if hashlib.sha256(data).hexdigest() != about["sha256"] or about["step"] != step:
                raise ValueError("its content is not what was saved (truncated or altered)")
            content = load(data)
            check_finite(content)
            return {"step": step, "sha256": about["sha256"], "tensors": content}
        except Exception as error:  # whatever a damaged file makes a parser raise
            say(f"checkpoint {path} is damaged: {damage_reason(error)}; going back to the one before")
    return None


def apply(tensors_: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Puts a checkpoint's tensors into the model, and into the optimizer if one is given.

    Raises RunFailed if they were saved from another architecture.
    """
    check_shapes(tensors_, shapes(model))
    weights = {name.removeprefix("model."): t for name, t in tensors_.items() if in_model(name)}
    # in the model's order: processes that share a model out do this together
    weights = {name: held_like(weights[name], tensor) for name, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunFailed(f"the checkpoint does not fit the model: {damage_reason(error)}") from error
    if optimizer is None:
        return
    for name, weight in zip(names(model), model.parameters(), strict=True):
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): t for key, t in sorted(tensors_.items()) if key.startswith(prefix)}
        if state.keys() != STATE or not all(t.is_floating_point() and fits(t, weight) for t in state.values()):
            raise RunFailed(f"the checkpoint does not fit the optimizer: of {name} it has other values")
        optimizer.state[weight] = {
            key: tensor.to(weight.device) if key == "step" else held_like(tensor, weight)
            for key, tensor in state.items()
        }


def shapes(model: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_shapes(tensors_: dict[str, torch.Tensor], wanted: Shapes) -> None:
    """Raises RunFailed unless the model's tensors are floats of the shapes that are wanted, and no others."""
    found = {name.removeprefix("model."): t for name, t in tensors_.items() if in_model(name)}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            raise RunFailed(f"the checkpoint does not fit the model: {'no' if name in wanted else 'an unknown'} {name}")
        if not same_shape(found[name].shape, wanted[name]) or not found[name].is_floating_point():
            raise RunFailed(
                f"the checkpoint does not fit the model: {name} is {list(found[name].shape)} of {found[name].dtype} "
                f"instead of {list(wanted[name])}"
            )


def same_shape(one: Sequence[int], other: Sequence[int]) -> bool:
    """A single number may have been saved without its dimension, by an older version."""
    return tuple(one) == tuple(other) or math.prod(one) == math.prod(other) == 1


def fits(tensor: torch.Tensor, weight: torch.Tensor) -> bool:
    return tensor.ndim == 0 or same_shape(tensor.shape, weight.shape)


def in_model(name: str) -> bool:
    return name.startswith("model.")


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
        if re.fullmatch("[0-9]{8,18}", number) and path.with_suffix(".safetensors").exists():
            found.append(int(number))
    return sorted(found, reverse=True)


def damage_reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())[:200]


def full(tensor: Tensor) -> Tensor:
    """`tensor`, put together where processes hold parts of it; all of them call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def held_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """`tensor` where `weight` is, and shared out as it is. (A single number may have been
    saved without its dimension, by an older version.)"""
    tensor = tensor.to(weight.device)
    if tensor.numel() == weight.numel() == 1:
        tensor = tensor.view(weight.shape)
    if not hasattr(weight, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(weight, DTensor)
    return distribute_tensor(tensor, weight.device_mesh, weight.placements)
