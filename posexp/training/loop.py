"""The training loop, with the same batches for every scheme and the same random draws in a repeated step.

Shape suffixes: B sequences of a batch, T tokens of a sequence.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from posexp.model.device import autocast
from posexp.runs import checkpoint
from posexp.training import distributed, optim
from posexp.training.lifecycle import lifecycle
from posexp.training.prepare import Training


def fit(training: Training, saved: dict[str, Any] | None) -> Callable[..., Tensor]:
    """Train from the checkpoint `saved`, or from the start. Return the function that computed the loss.

    Batches and draws are functions of (seed, step): a resumed run repeats, bit for bit on a CPU. Raises as `lifecycle`.
    """
    config, model, ranks, device = training.config, training.model, training.ranks, training.device
    compute_loss = distributed.distribute(model, config, ranks, device.type == "cuda" and config.train.compile)
    optimizer = optim.build_optimizer(model, config.train)
    if saved is not None:
        checkpoint.apply(saved["tensors"], model, optimizer if saved["step"] else None)  # a parent's weights alone
    first_step = saved["step"] if saved else 0
    model.train()
    with lifecycle(training, optimizer, first_step) as after:
        for step in range(first_step, config.train.steps):
            optim.set_learning_rate(optimizer, step, config.train)
            model.scheme.progress(step / config.train.steps)
            torch.manual_seed(ranks.seed(config.seed * 1_000_003 + step))
            for piece, (x_BT, y_BT) in enumerate(micro_batches(training, step), start=1):
                last = piece == config.train.accumulate  # gradients are exchanged once per step
                with autocast(training.precision, device), distributed.exchanging(compute_loss, last):
                    loss = compute_loss(x_BT, y_BT) / config.train.accumulate
                loss.backward()
                after.add(loss)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip or math.inf)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            after.step(step + 1, norm)  # log, save, stop on a signal or a loss that is not finite
    return compute_loss


def micro_batches(training: Training, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's share of each of `accumulate` micro-batches: tokens and targets [B, T] on the device."""
    config, device = training.config, training.device
    count = config.train.batch_tokens // config.train.length
    x_BT, y_BT = training.sampler.batch(config.seed, step, count)
    size = count // config.train.accumulate
    if device.type == "cuda":  # only pinned memory is copied asynchronously
        x_BT, y_BT = x_BT.pin_memory(), y_BT.pin_memory()
    move = lambda part: training.ranks.share(part).to(device, non_blocking=True)  # noqa: E731
    yield from zip(map(move, x_BT.split(size)), map(move, y_BT.split(size)), strict=True)
