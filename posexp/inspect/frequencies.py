"""The wavelengths of a rotary scheme's channel pairs.

Shape suffix: I rotated pairs.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posexp.output import sheet
from posexp.output.sheet import NOTE, Picture, ranges
from posexp.output.style import COLOURS, QUIET, above
from posexp.output.ticks import tick_text
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.schemes.xpos import XPos, xpos_decay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DISTANCE = 16  # in training lengths
AIR = 1.6  # factor of space above and below on the log axis


@dataclass(frozen=True)
class Turns:
    """The wavelengths (inf for pairs that do not rotate) and half-lives of one Rope's pairs, in tokens, [I] each."""

    about: str
    wave: Tensor
    half: Tensor | None

    def unfinished(self, length: int) -> list[int]:
        """Return the pairs (from 0, as in base^(-2i/d)) whose wavelength exceeds `length` tokens."""
        return [i for i, wave in enumerate(self.wave.tolist()) if wave > length]


@torch.no_grad()
def turns(scheme: Scheme) -> list[Turns]:
    """Return one entry for each distinct Rope in `scheme`."""
    found: list[Turns] = []
    for part in scheme.modules():
        if isinstance(part, Rope):
            theta_I = part.frequencies(scheme.dims.train_length, torch.device("cpu")).double().abs()
            half_I = None
            if isinstance(part, XPos):
                zeta_I = xpos_decay(part.rotary_dim, part.gamma, dtype=torch.float64)
                half_I = part.scale_base * math.log(0.5) / zeta_I.log()
            new = Turns(part.fingerprint(), 2 * math.pi / theta_I, half_I)
            if not any(same(new.wave, old.wave) and same(new.half, old.half) for old in found):
                found.append(new)
    return found


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def picture(scheme: Scheme, about: str) -> Picture | None:
    """Return the picture, or None if the scheme has no rotation."""
    found = turns(scheme)
    if not found:
        return None
    length = scheme.dims.train_length
    rows = [
        {
            "rope": one.about,
            "pair": i,
            "wavelength": wave,
            "turns_in_training": length / wave,
            "half_life": None if one.half is None else float(one.half[i]),
        }
        for one in found
        for i, wave in enumerate(one.wave.tolist())
    ]
    title = title_of(found[0], length)
    return sheet.picture(lambda: draw_frequencies(found, title, about, length), title, rows)


def title_of(one: Turns, length: int) -> str:
    within, count = one.unfinished(length), len(one.wave)
    words = f"All {count} pairs complete a turn in training"
    if within:
        words = f"{len(within)} of {count} pairs ({ranges(within)}) never complete a turn in training"
    if never := one.unfinished(MAX_DISTANCE * length):
        words += f", {len(never)} of them not in {MAX_DISTANCE * length:,} tokens"
    if one.half is not None:
        words += f"; half-lives of {one.half.min():,.0f} to {one.half.max():,.0f} tokens"
    return words


def draw_frequencies(found: list[Turns], title: str, about: str, length: int) -> "Figure":
    size = (7.6, 4.1) if len(found) == 1 else (max(3.0, 8.4 / len(found)), 3.2)
    figure, (panels,) = sheet.sheet(title, [about], (1, len(found)), size, over=0.12 if len(found) == 1 else 0.75)
    finite = torch.cat([kind[kind.isfinite()] for one in found for kind in (one.wave, one.half) if kind is not None])
    low = min(float(finite.min()), length) / AIR
    high = max(float(finite.max()), MAX_DISTANCE * length) * AIR
    for axes, one in zip(panels, found, strict=True):
        draw_panel(axes, one, length, low, high)
        if len(found) > 1:
            for points, words in ((16, title_of(one, length)), (4, one.about)):
                for line, text in enumerate(reversed(sheet.wrapped(words, size[0], NOTE))):
                    above(axes, text, points + 11 * line, size=NOTE, color=QUIET)
    panels[0].set_ylabel("tokens (log scale)", size=NOTE + 1)
    return figure


def draw_panel(axes: "Axes", one: Turns, length: int, low: float, high: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

    pair_I = torch.arange(len(one.wave))
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([tick_text(tick) for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("pair i", size=NOTE + 1)
    axes.margins(x=0.04)
    axes.axhspan(length, high, color="#f4f4f4", linewidth=0, zorder=0.4)
    for place, words in (
        (length, f"trained at {length:,}"),
        (MAX_DISTANCE * length, f"{MAX_DISTANCE} × that, {MAX_DISTANCE * length:,}"),
    ):
        axes.axhline(place, color="#8a8a8a", linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
        axes.annotate(
            words,
            (0, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 3),
            textcoords="offset points",
            size=NOTE - 0.5,
            color=QUIET,
        )
    dots: dict[str, Any] = {"linewidth": 1, "markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.8}
    axes.plot(pair_I, one.wave, "o-", color=COLOURS[0], label="wavelength: one full turn", **dots)
    if bool((still_I := one.wave.isinf()).any()):
        label, dots["linewidth"] = "does not rotate", 0
        axes.plot(pair_I[still_I], [high / AIR**0.4] * int(still_I.sum()), "^", color=COLOURS[0], label=label, **dots)
    if one.half is not None:
        label, dots["linewidth"] = "half-life: contribution to a logit halves", 1
        axes.plot(pair_I, one.half, "s-", color=COLOURS[1], label=label, **dots)
    axes.legend(loc="lower right", fontsize=NOTE + 0.5, edgecolor="none", framealpha=0.9)
