"""The check that training and evaluation compute the same loss of the same text."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from posexp.evaluation.scoring import Scorer
from posexp.model.device import autocast
from posexp.output.console import say
from posexp.training.loop import micro_batches
from posexp.training.prepare import Training

TOLERANCE = 0.1  # largest difference of the two losses, in nats
COMPARED_TOKENS = 16_384  # of fresh training text, the same for both losses, so that there is no sampling noise


def compare_losses(training: Training, compute_loss: Callable[..., Tensor]) -> None:
    """Score the same fresh training text with the loss of training and as evaluation does, and log both losses.

    A difference above TOLERANCE means that one of them is wrong (chuanyang-Zheng/DAPE, issue 2, is such a case).
    With dropout the check is skipped, because dropout changes the training loss.
    """
    config, model, device = training.config, training.model, training.device
    if config.model.dropout:
        return
    count = config.train.batch_tokens // config.train.length
    steps = config.train.steps + np.arange(-(-COMPARED_TOKENS // config.train.batch_tokens))  # after the last step
    total = torch.zeros((), device=device)
    torch.manual_seed(training.ranks.seed(config.seed))
    model.train()
    for step in steps.tolist():
        for x_BT, y_BT in micro_batches(training, step):
            with autocast(training.precision, device):
                total += compute_loss(x_BT, y_BT).detach() / config.train.accumulate
    trained = training.ranks.mean(total).item() / len(steps)
    start_B = np.concatenate([training.sampler.starts(config.seed, step, count) for step in steps.tolist()])
    window_B3 = np.stack((start_B, start_B + 1, start_B + config.train.length + 1), axis=1)
    ids_N = training.sampler.ids_N
    scores = Scorer(model, config.eval.batch_tokens, device, training.precision)(ids_N, window_B3)
    evaluated = float(scores.nll.mean())
    if not training.ranks.first:
        return
    agrees = abs(evaluated - trained) <= TOLERANCE
    training.run.record(
        config.train.steps,
        check="evaluation agrees with training",
        training_loss=trained if np.isfinite(trained) else None,
        evaluation_loss=evaluated if np.isfinite(evaluated) else None,
        agrees=agrees,
    )
    if not agrees:
        both = f"{evaluated:.3f} in evaluation but {trained:.3f} in training"
        say(f"{training.run.name}: the same text has a loss of {both}: distrust this run")
