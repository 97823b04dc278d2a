"""The mean distance and entropy of a trained model's attention, by query position.

Shape suffixes: B sequences, T tokens, K keys of a block, H heads, C channels of a head,
D width of the residual stream, L layers.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posexp.data import Tokens
from posexp.data.sampler import SequenceSampler
from posexp.model.base import Attend
from posexp.model.decoder import Decoder, SelfAttention
from posexp.output.figure import Picture, new_figure, rendered, write_heading
from posexp.output.style import QUIET, REFERENCE
from posexp.windows import Window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Sequences to average over: as many as hold about TOKENS tokens, within these bounds.
MIN_SEQUENCES, MAX_SEQUENCES = 4, 64
TOKENS = 16384
BATCH = 4096  # tokens per forward pass
KEYS = 1024  # keys whose weights are in memory at a time
UNSPENT = 0.005  # a smaller remainder of the weights is rounding
MAX_COLUMNS = 6


@dataclass(frozen=True)
class Reading:
    """The statistics of attention, averaged over `sequences` sequences, [L, H, T] each.

    Distances are in tokens, entropies in nats. `left` is the share of attention that no token receives. `even_` fields,
    [L, T], are for uniform attention over visible keys.
    """

    sequences: int
    distance: Tensor
    entropy: Tensor
    left: Tensor
    even_distance: Tensor
    even_entropy: Tensor


def weights(attend: Attend, q_BHTC: Tensor, k_BHTC: Tensor, x_BTD: Tensor, keys: slice) -> Tensor:
    """Return the weights [B, H, T, K] on a slice of the keys: attention is linear, so that identity rows yield them."""
    B, H, T, _ = q_BHTC.shape
    index_T = torch.arange(T, device=q_BHTC.device)
    eye_TK = (index_T[:, None] == index_T[keys]).to(q_BHTC.dtype)
    return attend(q_BHTC, k_BHTC, eye_TK.expand(B, H, T, -1), x_BTD=x_BTD)


def statistics(attend: Attend, q_BHTC: Tensor, k_BHTC: Tensor, x_BTD: Tensor) -> Tensor:
    """Return mean distance, entropy and remainder of every query's weights, [3, B, H, T].

    Weights may add up to less than 1, as in stick-breaking. Distance and entropy are those of the normalised weights,
    and NaN if all weights are 0.
    """
    index_T = torch.arange(q_BHTC.shape[2], device=q_BHTC.device)
    spent_BHT, distance_BHT, entropy_BHT = q_BHTC.new_zeros(3, *q_BHTC.shape[:3], dtype=torch.float64)
    for first in range(0, len(index_T), KEYS):
        keys = slice(first, first + KEYS)
        weight_BHTK = weights(attend, q_BHTC, k_BHTC, x_BTD, keys).double()
        spent_BHT += weight_BHTK.sum(-1)
        distance_BHT += (weight_BHTK * (index_T[:, None] - index_T[keys])).sum(-1)
        entropy_BHT -= torch.xlogy(weight_BHTK, weight_BHTK).sum(-1)
    rest_BHT = (1 - spent_BHT).clamp(min=0)
    return torch.stack((distance_BHT / spent_BHT, entropy_BHT / spent_BHT + spent_BHT.log(), rest_BHT))


def even(window: Window, T: int) -> Tensor:
    """Return mean distance and entropy over heads, [2, T], of uniform attention over the keys visible in `window`."""
    found_2T, index_T = torch.empty(2, T, dtype=torch.float64), torch.arange(T)
    for rows, keys, visible_QK in window.blocks(T, torch.device("cpu")):
        visible_HQK = visible_QK.reshape(-1, *visible_QK.shape[-2:])
        count_HQ = visible_HQK.sum(-1).double()
        distance_HQ = ((index_T[rows, None] - index_T[keys]) * visible_HQK).sum(-1) / count_HQ
        found_2T[:, rows] = torch.stack((distance_HQ, count_HQ.log())).mean(1)
    return found_2T


@torch.no_grad()
def read_attention(model: Decoder, tokens: Tokens, length: int, cross_documents: bool = False) -> Reading:
    """Measure attention in float32 on sequences of `length` tokens, in one document each unless `cross_documents`."""
    count = min(max(TOKENS // length, MIN_SEQUENCES), MAX_SEQUENCES)
    text_BT, _ = SequenceSampler(tokens, length, cross_documents).batch(seed=0, step=0, count=count)
    n_layer = model.scheme.dims.n_layer
    seen: list[list[Tensor]] = [[] for _ in range(n_layer)]  # [3, B, H, T] per layer and batch
    torch.manual_seed(0)  # schemes with random positions draw the same ones every time
    parts = [part for part in model.modules() if isinstance(part, SelfAttention)]
    with ExitStack() as hooks:
        for part, into in zip(parts, seen, strict=True):
            hooks.callback(part.register_forward_pre_hook(partial(collect_attention, into)).remove)
        for piece_BT in text_BT.split(max(1, BATCH // length)):
            model(piece_BT.to(model.embedding.weight.device))
    mean_3LHT = torch.stack([torch.cat(pieces, dim=1).nanmean(dim=1) for pieces in seen], dim=1)
    even_2LT = torch.stack([even(model.window.layer(layer), length) for layer in range(n_layer)], dim=1)
    return Reading(count, *mean_3LHT, *even_2LT)


def collect_attention(into: list[Tensor], part: SelfAttention, inputs: tuple[Tensor, Attend]) -> None:
    """Append the statistics of a layer's attention to `into`, before a forward pass with `inputs`."""
    x_BTD, attend = inputs
    q_BHTC, k_BHTC, _ = part.project(x_BTD)
    into.append(statistics(attend, q_BHTC, k_BHTC, x_BTD).cpu())


def head_range(values_HT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, minimum and maximum over the heads, [T] each, with NaN where no head has a value."""
    low_T, high_T = values_HT.nanquantile(values_HT.new_tensor([0, 1]), dim=0)
    return values_HT.nanmean(0), low_T, high_T


def picture(reading: Reading, about: str, train_length: int, split: str, colour: str) -> Picture:
    rows = []
    for layer in range(len(reading.distance)):
        columns: dict[str, Tensor] = {}
        for name, values in (("distance", reading.distance), ("entropy", reading.entropy)):
            columns |= zip((name, f"{name}_low", f"{name}_high"), head_range(values[layer]), strict=True)
        columns |= {"even_distance": reading.even_distance[layer], "even_entropy": reading.even_entropy[layer]}
        columns["left"] = reading.left[layer].mean(0)
        for position, numbers in enumerate(torch.stack(list(columns.values()), dim=1).tolist()):
            known = (None if math.isnan(number) else number for number in numbers)
            rows.append({"layer": layer + 1, "position": position, **dict(zip(columns, known, strict=True))})
    title = title_of(reading, train_length)
    drawing = rendered(lambda: draw_attention(reading, title, about, train_length, split, colour), title)
    return Picture(*drawing, rows)


def title_of(reading: Reading, train_length: int) -> str:
    """Return a title with mean distance and entropy in the last eighth of the training length and of the input."""
    T = reading.distance.shape[-1]
    ends = list(dict.fromkeys(end for end in (train_length, T) if end <= T))

    def near(values: Tensor, form: str) -> list[str]:
        return [form.format(float(values[..., end - max(1, end // 8) : end].nanmean())) for end in ends]

    tokens, nats = near(reading.distance, "{:.0f}"), near(reading.entropy, "{:.1f}")
    further = [f"{count} at {end:,}" for count, end in zip(tokens[1:], ends[1:], strict=True)]
    back = [f"{tokens[0]} tokens back at position {ends[0]:,}", *further]
    return f"Attention looks {' and '.join(back)}; entropy {' and '.join(nats)} nats"


def draw_attention(reading: Reading, title: str, about: str, train_length: int, split: str, colour: str) -> "Figure":
    L, H, T = reading.distance.shape
    columns = min(L, MAX_COLUMNS)
    rows = -(-L // columns)
    notes = [
        about,
        f"{reading.sequences} sequences of {T:,} tokens of the {split} split. Line: mean of {H} heads. Band: lowest to "
        f"highest head. Dashed: uniform attention over all visible keys. Vertical: trained at {train_length:,}. "
        "Title: mean over all layers and heads, in the last eighth before the position.",
    ]
    if (left := float(reading.left.mean())) > UNSPENT:
        notes.append(
            f"{100 * left:.0f} % of the attention goes to no token. Distance and entropy are those of the rest."
        )
    figure = new_figure(max(7.0, 2.2 * columns), 1.7 + 4.6 * rows)
    write_heading(figure, title, notes)
    kinds = (
        ("mean distance, tokens", reading.distance, reading.even_distance),
        ("entropy, nats", reading.entropy, reading.even_entropy),
    )
    for part, (what, values, reference) in zip(figure.subfigures(2, 1), kinds, strict=True):  # type: ignore[arg-type]
        panels = part.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for layer, axes in enumerate(panels[:L]):
            mean_T, low_T, high_T = head_range(values[layer])
            axes.fill_between(range(T), low_T, high_T, color=colour, alpha=0.2, linewidth=0, zorder=2)
            axes.plot(reference[layer], color=QUIET, linewidth=1.2, linestyle=(0, (5, 2)), zorder=2.5)
            axes.plot(mean_T, color=colour, linewidth=1.6, zorder=3)
            axes.axvline(train_length, **REFERENCE)
            axes.set(title=f"layer {layer + 1}", xlim=(0, T), ylim=(0, None))
            axes.locator_params(axis="x", nbins=4)
        for axes in panels[L:]:
            axes.remove()
        part.supylabel(what, size="medium")
        part.supxlabel("query position", size="medium")
    return figure
