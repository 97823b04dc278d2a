"""What transforms ask of a scheme before they change it."""

from typing import Any

import torch

from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.transforms import NotApplicable, changed


def parts_in_use(scheme: Scheme, kind: type, what: str) -> tuple[Scheme, list[Any]]:
    """`changed`, for a scheme that has not dropped its positions. Raises NotApplicable if it has, or never had any."""
    if not scheme.reads_positions:
        raise NotApplicable(f"{scheme.fingerprint()} reads no positions")
    return changed(scheme, kind, what)


def check_counted(scheme: Scheme) -> None:
    """Raises NotApplicable if positions are drawn: only those counted from 0 can be put elsewhere by a rule."""
    some = min(8, scheme.dims.train_length)
    if not torch.equal(scheme.positions(1, some, torch.device("cpu")), torch.arange(some)[None]):
        raise NotApplicable(f"{scheme.fingerprint()} draws its positions at evaluation")


def at_least(name: str, value: float | None, least: float) -> None:
    """Raises Misuse if an option is below `least`; None leaves it open."""
    if value is not None and not value >= least:
        raise Misuse(f"transform.{name}={value:g} must be at least {least:g}")
