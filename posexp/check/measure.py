"""Measurements of schemes, without verdicts.

A figure is the largest change of a log attention weight (ignoring weights below 1e-13), or of the decoder's output (of
unit scale) if the scheme defines its own attention. It is infinite if a value is not finite.
Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head, N distances,
Q query tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posexp import schemes
from posexp.check import authors
from posexp.check.probe import DIMS, QUERIES, VOCAB, Make, Probe, furthest, make_probe, text

CONTENT = 1024  # maximum tokens for schemes that read content
MAX_POSITION = 2**24  # number of positions that float32 represents exactly


def outcome(probe: Probe, tokens_1T: Tensor, last: int, shift: int = 0, content: bool = False) -> Tensor:
    """Return the log attention weights of the queries up to token `last`, or their output for `content`."""
    if content:
        return probe.hidden(tokens_1T, shift)[:, max(0, last - QUERIES) : last]
    return probe.log_weights(tokens_1T, last, shift)


@dataclass(frozen=True)
class Measured:
    """The measurements of a scheme in one dtype at one length. None marks those that do not apply."""

    dtype: torch.dtype
    length: int
    error: float | None = None  # against float64
    angle: float | None = None  # of rotated queries and keys against float64, in radians
    shifts: tuple[float, ...] | None = None  # change when all positions move, per shift
    prefix: float | None = None  # change of the first half by the second half of the input


def rows(make: Make, lengths: list[int], shifts: tuple[int, ...], kinds: tuple[torch.dtype, ...]) -> list[Measured]:
    """Return one row per dtype and length. Lengths are capped at the scheme's limit and at what can be computed."""
    exact, probes = make_probe(make, torch.float64), [make_probe(make, kind) for kind in kinds]
    content = exact.reads_content()
    longest = capped_length(exact, CONTENT if content else MAX_POSITION)
    lengths = list(dict.fromkeys(min(length, longest) for length in lengths))
    found: dict[tuple[torch.dtype, int], Measured] = {}
    for length in lengths:
        tokens_1T = text(length)
        wanted = outcome(exact, tokens_1T, length, content=content)
        for probe in probes:
            here = outcome(probe, tokens_1T, length, content=content)
            found[probe.dtype, length] = Measured(
                probe.dtype,
                length,
                error=furthest(here, wanted),
                angle=angle_error(probe, exact, length),
                # positions beyond the end of a table are undefined
                shifts=tuple(
                    furthest(here, outcome(probe, tokens_1T, length, shift, content=content)) for shift in shifts
                )
                if probe.scheme.max_length is None or probe.scheme.relative
                else None,
                prefix=prefix_change(probe, tokens_1T, content),
            )
    return [found[kind, length] for kind in kinds for length in lengths]


def prefix_change(probe: Probe, tokens_1T: Tensor, content: bool = False) -> float | None:
    """Return how much the second half of the input changes the last queries of the first half."""
    half = tokens_1T.shape[1] // 2
    if not half:
        return None
    alone = outcome(probe, tokens_1T[:, :half], half, content=content)
    return furthest(alone, outcome(probe, tokens_1T, half, content=content))


def angle_error(probe: Probe, exact: Probe, length: int) -> float | None:
    """Return the relative error (radians) of rotated unit queries and keys at the last positions, None if unrotated."""
    errors = []
    for (_, part), (_, wanted_part) in zip(probe.parts(), exact.parts(), strict=True):
        rotated, wanted = rotated_units(probe, part, length), rotated_units(exact, wanted_part, length)
        if rotated is None or wanted is None:
            continue
        for got_CHQC, wanted_CHQC in zip(rotated, wanted, strict=True):
            off_CHQ = (got_CHQC.double() - wanted_CHQC).norm(dim=-1) / wanted_CHQC.norm(dim=-1)
            errors.append(float(off_CHQ.nan_to_num(nan=torch.inf).max()))
    return max(errors, default=None)


def rotated_units(probe: Probe, part: schemes.Scheme, length: int) -> tuple[Tensor, Tensor] | None:
    unit_C1QC = torch.eye(DIMS.head_dim, dtype=probe.dtype)[:, None, None].repeat(1, 1, min(QUERIES, length), 1)
    unit_CHQC = unit_C1QC.repeat(1, DIMS.n_head, 1, 1)
    with probe.precision():
        rotated = part.rotate(unit_CHQC, unit_CHQC, torch.arange(length)[None, -QUERIES:])
    return None if rotated[0] is unit_CHQC else rotated


def capped_length(probe: Probe, wanted: int) -> int:
    """Return `wanted` tokens, capped at the scheme's max_length."""
    return min(wanted, probe.scheme.max_length or wanted)


def memory(make: Make) -> float:
    """Return how much an earlier longer input, batch and bfloat16 call change the output for a short input."""
    used, fresh = make_probe(make), make_probe(make)
    T = capped_length(used, 8 * DIMS.train_length)
    tokens_1T = text(T)[:, : max(1, T // 4)]
    Probe(used.model, torch.bfloat16).hidden(text(T))
    used.hidden(text(T, B=3))
    return furthest(used.hidden(tokens_1T), fresh.hidden(tokens_1T))


def future_leak(make: Make) -> float:
    """Return how much a token changes the output before it."""
    probe = make_probe(make)
    T = capped_length(probe, 24)
    tokens_1T = text(T)
    before_1TD = probe.hidden(tokens_1T)
    changes = []
    for t in (1, T // 2, T - 1):
        changed_1T = tokens_1T.clone()
        changed_1T[:, t] = (tokens_1T[:, t] + 1) % VOCAB
        changes.append(furthest(before_1TD[:, :t], probe.hidden(changed_1T)[:, :t]))
    return max(changes)


def batch_leak(make: Make) -> float:
    """Return how much a second sequence in the batch changes the output for the first."""
    probe = make_probe(make)
    tokens_BT = text(capped_length(probe, 48), B=2)
    return furthest(probe.hidden(tokens_BT)[:1], probe.hidden(tokens_BT[:1]))


def order_effect(make: Make) -> float:
    """Return how much swapping two tokens changes the last output of one block, where the mask reveals no order."""
    probe = make_probe(make, n_layer=1)
    T = capped_length(probe, 24)
    tokens_1T = text(T)
    early, late = T // 12, 3 * T // 8
    swapped_1T = tokens_1T.clone()
    swapped_1T[:, [early, late]] = tokens_1T[:, [late, early]]
    return furthest(probe.hidden(tokens_1T)[:, -1], probe.hidden(swapped_1T)[:, -1])


def bias_type(make: Make) -> torch.dtype | None:
    """Return the coarsest dtype of the scheme's biases, or None without a bias."""
    probe, gap_N = make_probe(make), torch.arange(8)
    with torch.no_grad():
        biases = [
            bias
            for _, part in probe.parts()
            for bias in (part.distance_bias(gap_N), part.bias(gap_N[None], gap_N[None]))
            if bias is not None
        ]
    return max((bias.dtype for bias in biases), key=lambda kind: torch.finfo(kind).eps, default=None)


@dataclass(frozen=True)
class Reach:
    """The shortest input with a non-finite value, or None if all inputs of up to `tried` tokens are finite.

    `more` states that the scheme is defined beyond `tried` tokens.
    """

    broken: int | None
    tried: int
    more: bool = False


def finite_reach(make: Make, dtype: torch.dtype) -> Reach | None:
    """Find the length up to which all outputs of a scheme are finite for queries and keys of ones.

    The length is doubled, then bisected. Only the first, middle and last positions are computed, to be fast. Returns
    None for a scheme that reads content.
    """
    probe = make_probe(make, dtype)
    if probe.reads_content():
        return None
    tried = capped_length(probe, MAX_POSITION)
    good, length = 0, min(64, tried)
    while is_finite(probe, length):
        if length == tried:
            return Reach(None, tried, more=probe.scheme.max_length is None)
        good, length = length, min(2 * length, tried)
    while length - good > 1:
        middle = (good + length) // 2
        good, length = (middle, length) if is_finite(probe, middle) else (good, middle)
    return Reach(length, length)


def is_finite(probe: Probe, length: int) -> bool:
    pos_1T = torch.tensor([[0, length // 2, length - 1]])
    ones_1HTC = torch.ones(1, DIMS.n_head, 3, DIMS.head_dim, dtype=probe.dtype)
    with probe.precision():
        outputs: list[Tensor | None] = [probe.scheme.embed(ones_1HTC.new_ones(1, 3, DIMS.d_model), pos_1T)]
        for _, part in probe.parts():
            outputs += part.rotate(ones_1HTC, ones_1HTC, pos_1T)
            with torch.autocast("cpu", enabled=False):
                outputs += [part.distance_bias(pos_1T[0]), part.bias(pos_1T[:, -1:], pos_1T)]
    return all(bool(part.isfinite().all()) for part in outputs if part is not None)


@dataclass(frozen=True)
class Authors:
    """The deviation of a scheme from results of its authors' code."""

    cases: int
    worst: float
    matched: bool
    sources: tuple[str, ...]


def authors_numbers(name: str) -> Authors | None:
    """Compare posexp's scheme with its authors' results, None without any."""
    cases = authors.cases(name)
    if not cases:
        return None
    errors = [authors.worst(case, schemes.build_scheme(name, case.dims, **case.options)) for case in cases]
    return Authors(
        len(cases),
        max(errors),
        all(error <= case.tolerance for error, case in zip(errors, cases, strict=True)),
        tuple(dict.fromkeys(case.source.split(",")[0] for case in cases)),
    )
