"""What a run does with context beyond its training length: uses it, ignores it, or breaks."""

from dataclasses import dataclass

from posexp.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Verdict:
    """Of one curve at one length beyond its training length, under same_targets.

    `word` is uses, ignores, breaks, unclear, or the status that keeps it from having one (undefined, non-finite,
    out of memory). `difference` is the loss less that of `control`, in nats per token, paired by target, over seeds
    and documents; `control` is "cropped" or "window", whichever has the lower loss. `shuffled` is the loss with what
    lies beyond the training length shuffled less the loss without, likewise; None where it was not measured.
    """

    curve: str
    length: int
    word: str
    control: str
    difference: Estimate | None
    shuffled: Estimate | None


@dataclass(frozen=True)
class Usable:
    """The largest evaluated length of one curve up to which it never breaks; `at_least` if that is the longest."""

    curve: str
    length: int
    at_least: bool
