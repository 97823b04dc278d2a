"""The wavelengths of a rotary scheme's channel pairs.

Shape suffix: I rotated pairs.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posexp.output.figure import NOTE, Picture, new_figure, ranges, rendered, set_log_scale, wrapped, write_heading
from posexp.output.style import INK, QUIET, REFERENCE, STRIP
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.schemes.xpos import XPos, xpos_decay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DISTANCE = 16  # in training lengths


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
    found: dict[tuple[object, ...], Turns] = {}
    for part in scheme.modules():
        if isinstance(part, Rope):
            theta_I = part.frequencies(scheme.dims.train_length, torch.device("cpu")).double().abs()
            half_I = None
            if isinstance(part, XPos):
                zeta_I = xpos_decay(part.rotary_dim, part.gamma, dtype=torch.float64)
                half_I = part.scale_base * math.log(0.5) / zeta_I.log()
            one = Turns(part.fingerprint(), 2 * math.pi / theta_I, half_I)
            found.setdefault((*theta_I.tolist(), None if half_I is None else str(half_I.tolist())), one)
    return list(found.values())


def picture(scheme: Scheme, about: str, colour: str) -> Picture | None:
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
    return Picture(*rendered(lambda: draw_frequencies(found, title, about, length, colour), title), rows)


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


def draw_frequencies(found: list[Turns], title: str, about: str, length: int, colour: str) -> "Figure":
    wide = 8.2 if len(found) == 1 else max(3.6, 8.4 / len(found))
    figure = new_figure(wide * len(found), 5.2)
    write_heading(figure, title, [about])
    far, dots = MAX_DISTANCE * length, {"linewidth": 1, "markersize": 6, "markeredgecolor": "white"}
    for axes, one in zip(figure.subplots(1, len(found), sharey=True, squeeze=False).flat, found, strict=True):
        for place, words in ((length, f"trained at {length:,}"), (far, f"{MAX_DISTANCE} × that, {far:,}")):
            axes.axhline(place, **REFERENCE)
            look: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "size": NOTE}
            axes.annotate(words, (0, place), xytext=(4, 3), color=QUIET, **look)
        axes.plot(one.wave, "o-", color=colour, label="wavelength: one full turn", **dots)
        if still := one.wave.isinf().nonzero().flatten().tolist():
            edge = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": colour, **dots}
            axes.plot(still, [1] * len(still), "^", label="does not rotate", **edge)
        if one.half is not None:
            axes.plot(one.half, "s-", color=INK, label="half-life: contribution to a logit halves", **dots)
        axes.set_xlabel("pair i")
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="lower right")
        if len(found) > 1:
            axes.set_title(wrapped(title_of(one, length), wide, NOTE) + "\n" + one.about, size=NOTE, color=QUIET)
    figure.axes[0].set_ylabel("tokens (log scale)")
    set_log_scale(figure.axes[0], "y")
    top = figure.axes[0].get_ylim()[1]
    for axes in figure.axes:
        axes.axhspan(length, top, color=STRIP, zorder=0.4)
    figure.axes[0].set_ylim(top=top)
    return figure
