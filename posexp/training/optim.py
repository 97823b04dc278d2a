"""The optimizer and its schedule, the same for every scheme.

Shape suffixes: N matrices, A rows of each, B columns, no fewer than rows.
"""

import inspect
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from posexp.config.sections import Optimizer, TrainConfig
from posexp.runs.checkpoint import full

BETAS = (0.9, 0.95)  # the usual choice for language models since GPT-3; no experiment here turns them
FINAL_LR = 0.1  # share of the peak learning rate at the end of the cosine
MOMENTUM = 0.95  # of Muon, as are the constants below: Jordan 2024, https://kellerjordan.github.io/posts/muon
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of x, x^3 and x^5
ITERATIONS = 5
RMS = 0.2  # of a step of AdamW, in multiples of the learning rate: Liu et al. 2025, arXiv 2502.16982, section 2.2


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW without the wrappers that import torch._dynamo, which takes a second: it is never compiled."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Muon(AdamW):
    """AdamW for all weights but those of groups with `rows`, whose momentum is made orthogonal. Jordan 2024.

    A step has the size of one of AdamW (Liu et al. 2025, arXiv 2502.16982, section 2.2), so that one learning rate
    serves both. Unlike torch.optim.Muon, it treats the matrices that a layer stacks one by one, as Jordan advises for
    queries, keys and values; it multiplies all matrices of a shape at once; and it gathers those that FSDP shards.
    `rows` has, for each weight, the rows of each of its matrices.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if "rows" in group:
                self.step_of(group)
        super().step()  # of the other weights: those of `rows` have no gradient any more

    def step_of(self, group: dict[str, Any]) -> None:
        """Update the weights of a group with `rows`, and discard their gradients."""
        moved = [pair for pair in zip(group["params"], group["rows"], strict=True) if pair[0].grad is not None]
        weights, grads = [weight for weight, _ in moved], [weight.grad for weight, _ in moved]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            weight.grad = None
        momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
        nesterov = [full(one.bfloat16()) for one in torch._foreach_lerp(grads, momenta, MOMENTUM)]
        pieces = iter(orthogonal([p for one, (_, rows) in zip(nesterov, moved, strict=True) for p in one.split(rows)]))
        steps = [sharded_like(torch.cat([next(pieces) for _ in rows]), weight) for weight, rows in moved]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, steps, alpha=-group["lr"])


def orthogonal(matrices: list[Tensor]) -> list[Tensor]:
    """Return each bfloat16 matrix with its singular values near 1, scaled to a root mean square of RMS, in float32."""
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    found: dict[int, Tensor] = {}
    for index, matrix in enumerate(matrices):
        members[min(matrix.shape), max(matrix.shape)].append(index)
    for (_, columns), indices in members.items():
        wide = [matrices[index] if matrices[index].shape[1] == columns else matrices[index].T for index in indices]
        x_NAB = newton_schulz(torch.stack(wide)).float() * (RMS * columns**0.5)
        for index, x_AB in zip(indices, x_NAB, strict=True):
            found[index] = x_AB if x_AB.shape == matrices[index].shape else x_AB.T
    return [found[index] for index in range(len(matrices))]


def newton_schulz(x_NAB: Tensor) -> Tensor:
    """Return the matrices with their singular values between about 0.7 and 1.2. Jordan 2024."""
    a, b, c = NEWTON_SCHULZ
    x_NAB = x_NAB / x_NAB.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram_NAA = x_NAB @ x_NAB.mT
        x_NAB = torch.baddbmm(x_NAB, torch.baddbmm(gram_NAA, gram_NAA, gram_NAA, beta=b, alpha=c), x_NAB, beta=a)
    return x_NAB


def build_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """Return the optimizer, which decays matrices but not vectors (norms, per-head scalars).

    Parameters of the scheme have `scheme_lr` times the learning rate, and no decay without `scheme_weight_decay`. Muon
    moves the weights of linear layers in the blocks, and AdamW all others.
    """
    muon = config.optimizer is Optimizer.muon
    rows = linear_rows(model.blocks) if muon else {}  # type: ignore[arg-type]
    members: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}  # by part of the scheme, decayed, moved by AdamW
    for name, weight in model.named_parameters():
        of_scheme = name.startswith("scheme.")
        decayed = weight.ndim >= 2 and (config.scheme_weight_decay or not of_scheme)
        members.setdefault((of_scheme, not decayed, weight not in rows), []).append(weight)
    groups = [
        {
            "params": weights,
            "weight_decay": 0.0 if exempt else config.weight_decay,
            "lr_multiplier": config.scheme_lr if of_scheme else 1.0,
            **({} if by_adamw else {"rows": [rows[weight] for weight in weights]}),
        }
        for (of_scheme, exempt, by_adamw), weights in sorted(members.items(), key=lambda item: item[0])
    ]
    return (Muon if muon else AdamW)(groups, lr=config.lr, betas=BETAS, fused=True)


def linear_rows(blocks: nn.ModuleList) -> dict[Tensor, tuple[int, ...]]:
    """Return the weights of all linear layers, with the rows of each matrix that a weight stacks."""
    layers = [module for module in blocks.modules() if isinstance(module, nn.Linear)]
    return {layer.weight: getattr(layer, "rows", (layer.out_features,)) for layer in layers}


def sharded_like(step: Tensor, weight: Tensor) -> Tensor:
    """Return the part of `step`, which all processes have, of the rows of `weight` in this process."""
    if not hasattr(weight, "full_tensor"):
        return step
    from torch.distributed.tensor import DTensor

    assert isinstance(weight, DTensor)
    return DTensor.from_local(step, weight.device_mesh, run_check=False).redistribute(placements=weight.placements)


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
