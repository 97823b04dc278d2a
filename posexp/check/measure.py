"""Measurements of schemes, without verdicts.

A figure is the largest change of a log attention weight (ignoring weights below 1e-13), or of the decoder's output (of
unit scale) if the scheme defines its own attention. It is infinite if a value is not finite.
Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head, N distances,
Q query tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posexp.check.probe import DIMS, QUERIES, VOCAB, Make, Probe, furthest, text
from posexp.schemes import Scheme
from posexp.transforms.low_precision import coarse_positions

CONTENT = 1024  # maximum tokens for schemes that read content
MAX_POSITION = 2**24  # number of positions that float32 represents exactly
SHIFTS = (1000, 100_000)  # of all positions
KINDS = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Row:
    """The figures of a scheme in one dtype at one length, by heading. None marks those that do not apply.

    error: against float64. angle: error of rotated queries and keys against float64, in radians. shift: when all
    positions move. prefix: change of the first half by the second half of the input. rounded: when positions, distances
    and angles are rounded to bfloat16 and all else is float32.
    """

    dtype: torch.dtype
    length: int
    figures: dict[str, float | None]


def rows(make: Make, lengths: list[int], kinds: tuple[torch.dtype, ...] = KINDS) -> list[Row]:
    """Return one row per dtype and length. Lengths are capped at the scheme's limit and at what can be computed."""
    exact, probes = Probe(make, torch.float64), [Probe(make, kind) for kind in kinds]
    coarse = Probe(lambda dims: coarse_positions(make(dims))) if exact.scheme.reads_positions else None
    longest = capped_length(exact, CONTENT if exact.reads_content else MAX_POSITION)
    lengths = list(dict.fromkeys(min(length, longest) for length in lengths))
    found: dict[tuple[torch.dtype, int], Row] = {}
    for length in lengths:
        tokens_1T, half = text(length), length // 2
        wanted = exact.outcome(tokens_1T, length)
        for probe in probes:
            here = probe.outcome(tokens_1T, length)
            figures = {"error": furthest(here, wanted), "angle": angle_error(probe, exact, length)}
            # positions beyond the end of a table are undefined
            shifts = SHIFTS if probe.scheme.max_length is None or probe.scheme.relative else ()
            figures |= dict.fromkeys(f"shift {shift:,}" for shift in SHIFTS)
            for shift in shifts:
                figures[f"shift {shift:,}"] = furthest(here, probe.outcome(tokens_1T, length, shift))
            figures["prefix"] = None
            if half:
                figures["prefix"] = furthest(probe.outcome(tokens_1T[:, :half], half), probe.outcome(tokens_1T, half))
            figures["rounded"] = None
            if coarse is not None and probe.dtype is torch.float32:
                figures["rounded"] = furthest(here, coarse.outcome(tokens_1T, length))
            found[probe.dtype, length] = Row(probe.dtype, length, figures)
    return [found[kind, length] for kind in kinds for length in lengths]


def angle_error(probe: Probe, exact: Probe, length: int) -> float | None:
    """Return the relative error (radians) of rotated unit queries and keys at the last positions, None if unrotated."""
    errors = []
    for (_, part), (_, exact_part) in zip(probe.parts, exact.parts, strict=True):
        rotated, wanted = rotated_units(probe, part, length), rotated_units(exact, exact_part, length)
        for got_CHQC, wanted_CHQC in zip(rotated, wanted, strict=True):
            off_CHQ = (got_CHQC.double() - wanted_CHQC).norm(dim=-1) / wanted_CHQC.norm(dim=-1)
            errors.append(float(off_CHQ.nan_to_num(nan=torch.inf).max()))
    return max(errors, default=None)


def rotated_units(probe: Probe, part: Scheme, length: int) -> tuple[Tensor, ...]:
    unit_C1QC = torch.eye(DIMS.head_dim, dtype=probe.dtype)[:, None, None].repeat(1, 1, min(QUERIES, length), 1)
    unit_CHQC = unit_C1QC.repeat(1, DIMS.n_head, 1, 1)
    with probe.precision():
        rotated = part.rotate(unit_CHQC, unit_CHQC, torch.arange(length)[None, -QUERIES:])
    return () if rotated[0] is unit_CHQC else rotated


def capped_length(probe: Probe, wanted: int) -> int:
    """Return `wanted` tokens, capped at the scheme's max_length."""
    return min(wanted, probe.scheme.max_length or wanted)


def memory(make: Make) -> float:
    """Return how much an earlier longer input, batch and bfloat16 call change the output for a short input."""
    used, fresh = Probe(make), Probe(make)
    T = capped_length(used, 8 * DIMS.train_length)
    tokens_1T = text(T)[:, : max(1, T // 4)]
    used.dtype = torch.bfloat16
    used.hidden(text(T))
    used.dtype = torch.float32
    used.hidden(text(T, B=3))
    return furthest(used.hidden(tokens_1T), fresh.hidden(tokens_1T))


def future_leak(make: Make) -> float:
    """Return how much a token changes the output before it."""
    probe = Probe(make)
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
    probe = Probe(make)
    tokens_BT = text(capped_length(probe, 48), B=2)
    return furthest(probe.hidden(tokens_BT)[:1], probe.hidden(tokens_BT[:1]))


def order_effect(make: Make) -> float:
    """Return how much swapping two tokens changes the last output of one block, where the mask reveals no order."""
    probe = Probe(make, n_layer=1)
    T = capped_length(probe, 24)
    tokens_1T = text(T)
    early, late = T // 12, 3 * T // 8
    tokens_1T[:, late : late + 2] = ord("0")  # for schemes that count digits
    swapped_1T = tokens_1T.clone()
    swapped_1T[:, [early, late]] = tokens_1T[:, [late, early]]
    return furthest(probe.hidden(tokens_1T)[:, -1], probe.hidden(swapped_1T)[:, -1])


@torch.no_grad()
def bias_type(make: Make) -> torch.dtype | None:
    """Return the coarsest dtype of the scheme's biases, or None without a bias."""
    gap_N = torch.arange(8)
    parts = [part for _, part in Probe(make).parts]
    biases = [bias for part in parts for bias in (part.distance_bias(gap_N), part.bias(gap_N[None], gap_N[None]))]
    kinds = [bias.dtype for bias in biases if bias is not None]
    return max(kinds, key=lambda kind: torch.finfo(kind).eps, default=None)


def finite_reach(make: Make, dtype: torch.dtype) -> int | None:
    """Return the longest input, in tokens, for which all outputs of a scheme are finite for queries and keys of ones.

    At most MAX_POSITION tokens or the scheme's max_length are tried: the length is doubled, then bisected. None for a
    scheme that reads content.
    """
    probe = Probe(make, dtype)
    if probe.reads_content:
        return None
    most = capped_length(probe, MAX_POSITION)
    good, length = 0, min(64, most)
    while good < most and is_finite(probe, length):
        good, length = length, min(2 * length, most)
    while length - good > 1:
        middle = (good + length) // 2
        good, length = (middle, length) if is_finite(probe, middle) else (good, middle)
    return good


def is_finite(probe: Probe, length: int) -> bool:
    """Return whether outputs are finite at the first, middle and last of `length` positions, which is fast."""
    pos_1T = torch.tensor([[0, length // 2, length - 1]])
    ones_1HTC = torch.ones(1, DIMS.n_head, 3, DIMS.head_dim, dtype=probe.dtype)
    with probe.precision():
        outputs: list[Tensor | None] = [probe.scheme.embed(ones_1HTC.new_ones(1, 3, DIMS.d_model), pos_1T)]
        for _, part in probe.parts:
            outputs += part.rotate(ones_1HTC, ones_1HTC, pos_1T)
            with torch.autocast("cpu", enabled=False):
                outputs += [part.distance_bias(pos_1T[0]), part.bias(pos_1T[:, -1:], pos_1T)]
    return all(bool(part.isfinite().all()) for part in outputs if part is not None)
