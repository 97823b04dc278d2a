"""The checks of a scheme before a transform changes it."""

from typing import Any

import torch

from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.transforms import NotApplicable, changed


def parts_in_use(scheme: Scheme, kind: type, what: str) -> tuple[Scheme, list[Any]]:
    """Return what `changed` returns. Raises NotApplicable for a scheme that reads no positions, or dropped them."""
    if not scheme.reads_positions:
        raise NotApplicable(f"{scheme.fingerprint()} reads no positions")
    return changed(scheme, kind, what)


def check_counted(scheme: Scheme) -> None:
    """Raise NotApplicable if positions are drawn, since a rule can only change positions counted from 0."""
    some = min(8, scheme.dims.train_length)
    if not torch.equal(scheme.positions(1, some, torch.device("cpu")), torch.arange(some)[None]):
        raise NotApplicable(f"{scheme.fingerprint()} draws its positions at evaluation")


def at_least(name: str, value: float | None, least: float) -> None:
    """Raise Misuse if an option is below `least`. None is allowed."""
    if value is not None and not value >= least:
        raise Misuse(f"transform.{name}={value:g} must be at least {least:g}")
