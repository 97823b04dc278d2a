"""The promises of a scheme, and by how much it keeps or breaks each."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from posexp.check import measure
from posexp.check.measure import Authors, Measured, Reach
from posexp.check.probe import Make, make_probe
from posexp.schemes import Scheme

SHIFTS = (1000, 100_000)
KINDS = (torch.float32, torch.bfloat16)
# Tolerances for rounding: logits of 10 in bfloat16 (the scheme `none` changes by 0.02), and five units in the last
# place of p for angles at position p in float32.
STEP = {torch.float32: 1e-4, torch.bfloat16: 0.25}
DRIFT = 3e-7
READS = 1e-4  # minimum effect of token order for a scheme that reads positions


@dataclass(frozen=True)
class Promise:
    """The result for one promise: the measured `figure`, its `bound`, and an explanation in `means`."""

    name: str
    figure: float
    bound: str
    kept: bool
    means: str


@dataclass(frozen=True)
class Report:
    """All results for one scheme."""

    name: str
    fingerprint: str = ""
    rows: list[Measured] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    finite: dict[torch.dtype, Reach] = field(default_factory=dict)
    authors: Authors | None = None
    failure: str | None = None  # the error that ended the measurements

    @property
    def broken(self) -> list[str]:
        """The broken promises with their explanations, or the failure."""
        if self.failure is not None:
            return [self.failure]
        return [f"{promise.name}: {promise.means}" for promise in self.promises if not promise.kept]


def examine(name: str, make: Make, lengths: list[int], with_authors: bool = False) -> Report:
    """Measure the scheme that `make` builds at `lengths` in tokens. Any exception is reported as its failure."""
    try:
        scheme = make_probe(make).scheme
        rows = measure.rows(make, lengths, SHIFTS, KINDS)
        finite = {kind: measure.finite_reach(make, kind) for kind in (torch.float32, torch.float16)}
        numbers = measure.authors_numbers(name) if with_authors else None
        promises = [
            *([relative(rows)] if scheme.relative else []),
            *([prefix_stable(rows)] if scheme.prefix_stable else []),
            exact(rows),
            order(make, scheme),
            *(at_most(title, measured(make), most, means) for title, measured, most, means in NONE_OF),
            *float32_bias(make),
            *([authors_numbers(numbers)] if numbers else []),
        ]
    except Exception as error:  # a user's scheme may raise anything
        return Report(name, failure=f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": "))
    reach = {kind: found for kind, found in finite.items() if found is not None}
    return Report(name, scheme.fingerprint(), rows, promises, reach, numbers)


NONE_OF: list[tuple[str, Callable[[Make], float], float, str]] = [
    ("no future", measure.future_leak, 1e-6, "a later token changes the output by"),
    ("no memory", measure.memory, 0.0, "a longer input, a batch and a bfloat16 call before change the output by"),
    ("batch apart", measure.batch_leak, 1e-5, "another sequence in the batch changes the output by"),
]


def allowed(row: Measured, furthest_position: int) -> float:
    return STEP[row.dtype] + DRIFT * furthest_position


def at_most(name: str, figure: float, most: float, means: str) -> Promise:
    return Promise(name, figure, f"≤ {most:.2g}", figure <= most, f"{means} {figure:.2g}, of {most:.2g} allowed")


def worst(name: str, found: list[tuple[float, float, str]]) -> Promise:
    """Return the promise for the worst of (figure, allowed, explanation), relative to what is allowed."""
    measured = max(found, key=lambda entry: entry[0] / entry[1], default=(0.0, 0.0, "no measurement:"))
    return at_most(name, *measured)


def place(row: Measured) -> str:
    return f"in {name_of(row.dtype)} at {row.length:,} tokens"


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def relative(rows: list[Measured]) -> Promise:
    return worst(
        "relative",
        [
            (figure, allowed(row, row.length + shift), f"{place(row)} moving all positions by {shift:,} changes")
            for row in rows
            for shift, figure in zip(SHIFTS, row.shifts or (), strict=False)
        ],
    )


def prefix_stable(rows: list[Measured]) -> Promise:
    return worst(
        "prefix-stable",
        [
            (row.prefix, allowed(row, row.length), f"{place(row)} the second half changes the first by")
            for row in rows
            if row.prefix is not None
        ],
    )


def exact(rows: list[Measured]) -> Promise:
    return worst(
        "exact",
        [
            (row.error, allowed(row, row.length), f"{place(row)} the deviation from float64 is")
            for row in rows
            if row.error is not None
        ],
    )


def order(make: Make, scheme: Scheme) -> Promise:
    figure = measure.order_effect(make)
    means = "the order of earlier tokens changes the output by"
    if not scheme.reads_positions:
        return at_most("reads no positions", figure, READS, means)
    return Promise("reads positions", figure, f"> {READS:.2g}", figure > READS, f"{means} {figure:.2g}")


def float32_bias(make: Make) -> list[Promise]:
    kind = measure.bias_type(make)
    if kind is None:
        return []
    step, most = torch.finfo(kind).eps, torch.finfo(torch.float32).eps
    return [at_most("bias in float32", step, most, f"the bias is {name_of(kind)}, with steps of")]


def authors_numbers(numbers: Authors) -> Promise:
    return Promise(
        "authors' numbers",
        numbers.worst,
        f"{numbers.cases} from {', '.join(numbers.sources)}",
        numbers.matched,
        f"deviate from {', '.join(numbers.sources)} by {numbers.worst:.2g}",
    )
