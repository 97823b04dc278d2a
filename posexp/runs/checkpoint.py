"""The checkpoints of a run: safetensors and JSON, written atomically; the last two are kept.

checkpoint/step-00000400.safetensors   model.* and optimizer.* tensors
checkpoint/step-00000400.json          step and sha256 of the tensors; written last, so it marks a complete checkpoint
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from posexp.errors import RunFailed
from posexp.runs.verify import read_about, steps
from posexp.storage import atomic, untrusted

KEPT = 2
MAX_BYTES = 1 << 40  # of a checkpoint
ADAMW, MUON = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}  # the state of each weight

Shapes = dict[str, tuple[int, ...]]


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, write: bool = True) -> None:
    """Save a checkpoint of step `step`, and remove all but the last two. Every rank must call it, and one `write`."""
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
    except Exception as error:  # safetensors raises an error of its own if the disk is full
        aside.unlink(missing_ok=True)
        raise RunFailed(
            f"cannot save {stem}.safetensors: {damage_reason(error)}; earlier checkpoints are kept"
        ) from error
    set_aside(folder, step)
    tidy(folder)


def set_aside(folder: Path, step: int) -> None:
    """Rename the checkpoints of steps after `step`, which are damaged, so that they do not count among the last two."""
    for later in steps(folder):
        if later > step:
            for suffix in (".json", ".safetensors"):
                path = folder / f"step-{later:08d}{suffix}"
                path.replace(path.with_name(f"damaged-{path.name}"))


def tidy(folder: Path) -> None:
    """Remove all but the last two checkpoints, and incomplete files of killed processes."""
    kept = {f"step-{step:08d}" for step in steps(folder)[:KEPT]}
    for path in sorted(folder.glob("*")):  # .json before .safetensors
        ours = path.name.startswith(("step-", ".step-", ".tmp"))  # .tmp: temporary files of safetensors
        if ours and not (path.stem in kept and path.suffix in (".json", ".safetensors")):
            path.unlink(missing_ok=True)


def restore(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Load the newest valid checkpoint, {"step", "sha256", "tensors"}; log damaged ones through `say` and skip them."""
    for step in steps(folder):
        path = folder / f"step-{step:08d}.safetensors"
        try:
            about = read_about(folder, step)
            data = untrusted.read_bytes(path, MAX_BYTES)
            if hashlib.sha256(data).hexdigest() != about["sha256"] or about["step"] != step:
                raise ValueError("its content differs from what was saved (truncated or altered)")
            content = load(data)
            check_finite(content)
            return {"step": step, "sha256": about["sha256"], "tensors": content}
        except Exception as error:  # parsers raise any error for a damaged file
            say(f"checkpoint {path} is damaged: {damage_reason(error)}; trying the previous checkpoint")
    return None


def apply(tensors_: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Load the tensors into the model, and into `optimizer` unless None; RunFailed for another architecture's."""
    check_shapes(tensors_, shapes(model))
    weights = of_model(tensors_)
    # in the model's order, because the ranks of a sharded model must do this together
    weights = {name: placed_like(weights[name], tensor) for name, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunFailed(f"the checkpoint does not fit the model: {damage_reason(error)}") from error
    if optimizer is None:
        return
    wanted = {w: MUON if "rows" in group else ADAMW for group in optimizer.param_groups for w in group["params"]}
    for name, weight in zip(names(model), model.parameters(), strict=True):
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): t for key, t in sorted(tensors_.items()) if key.startswith(prefix)}
        fits = all(t.is_floating_point() and (not t.ndim or t.shape == weight.shape) for t in state.values())
        if state.keys() != wanted[weight] or not fits:
            raise RunFailed(f"the checkpoint does not fit the optimizer: its state of {name} differs")
        optimizer.state[weight] = {
            key: tensor.to(weight.device) if key == "step" else placed_like(tensor, weight)
            for key, tensor in state.items()
        }


def shapes(model: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_shapes(tensors_: dict[str, torch.Tensor], wanted: Shapes) -> None:
    """Raise RunFailed unless the model's tensors are floats with exactly the names and shapes of `wanted`."""
    found = of_model(tensors_)
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            raise RunFailed(f"the checkpoint does not fit the model: {'no' if name in wanted else 'an unknown'} {name}")
        if found[name].shape != wanted[name] or not found[name].is_floating_point():
            raise RunFailed(
                f"the checkpoint does not fit the model: {name} is {list(found[name].shape)} of {found[name].dtype} "
                f"instead of {list(wanted[name])}"
            )


def of_model(tensors_: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): t for name, t in tensors_.items() if name.startswith("model.")}


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, torch.Tensor]:
    """Gather all tensors of a checkpoint. Every rank must call tensors; only ranks that `keep` them get them."""
    parts = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, weight in zip(names(model), model.parameters(), strict=True):
        for key, value in optimizer.state[weight].items():
            parts[f"optimizer.{name}.{key}"] = value
    found = {}
    for name, tensor in parts.items():
        gathered = full(tensor)
        if keep:  # a GPU with one shard may lack memory for the full tensor
            found[name] = tensor if gathered is tensor else gathered.cpu()
    return found


def check_finite(tensors_: dict[str, torch.Tensor]) -> None:
    """Raise ValueError unless all tensors are finite, since training cannot recover from NaN or infinity."""
    for name, tensor in tensors_.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def damage_reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())[:200]


def full(tensor: Tensor) -> Tensor:
    """Return the full tensor of a shard. Every rank must call full."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def placed_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """Return `tensor` with the device and the sharding of `weight`."""
    tensor = tensor.to(weight.device)
    if not hasattr(weight, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(weight, DTensor)
    return distribute_tensor(tensor, weight.device_mesh, weight.placements)
