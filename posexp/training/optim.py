"""The optimizer and its schedule, the same for every scheme."""

import inspect
import math

import torch
from torch import nn

from posexp.config.sections import TrainConfig

BETAS = (0.9, 0.95)  # the usual choice for language models since GPT-3; no experiment here turns them
FINAL_LR = 0.1  # share of the peak learning rate at the end of the cosine


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW without the wrappers that import torch._dynamo, which takes a second: it is never compiled."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def build_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """Return AdamW that decays matrices but not vectors (norms, per-head scalars).

    Parameters of the scheme have `scheme_lr` times the learning rate, and no decay without `scheme_weight_decay`.
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}  # by part of the scheme, decayed
    for name, weight in model.named_parameters():
        of_scheme = name.startswith("scheme.")
        decayed = weight.ndim >= 2 and (config.scheme_weight_decay or not of_scheme)
        members.setdefault((of_scheme, decayed), []).append(weight)
    groups = [
        {
            "params": weights,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr_multiplier": config.scheme_lr if of_scheme else 1.0,
        }
        for (of_scheme, decayed), weights in sorted(members.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]
    return AdamW(groups, lr=config.lr, betas=BETAS, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> None:
    """Set the learning rate of `step` in every group."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr_multiplier"] * learning_rate(step, config)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate: a linear warm-up, then a cosine down to FINAL_LR of the peak."""
    warmup = round(config.warmup * config.steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return config.lr * (FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * done)) / 2)
