"""The bias that a scheme adds to the logits, by distance.

Shape suffixes: N distances, H heads.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posexp.output.figure import Picture, new_figure, ranges, rendered, set_log_scale, short, write_heading
from posexp.output.style import REFERENCE
from posexp.schemes import Scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DISTANCE = 16  # in training lengths
MIN_BIAS = -16.0  # logits: e^-16 is a ten-millionth of the weight of a key without bias
MAX_COLUMNS = 5


@dataclass
class Curves:
    """The bias of every head in `layers` (from 1): `bias`, [H, N], at the distances `gap`, [N].

    `query` is the query position, or None if the bias depends on distance alone.
    """

    layers: list[int]
    query: int | None
    gap: Tensor
    bias: Tensor

    def name(self, everywhere: bool) -> str:
        """Return the panel's name, without layers if they are the same `everywhere`."""
        layers = "" if everywhere else f"layer{'s' * (len(self.layers) > 1)} {ranges(self.layers)}"
        query = "" if self.query is None else f"query at {self.query:,}"
        return ", ".join(part for part in (layers, query) if part)


@torch.no_grad()
def curves(scheme: Scheme) -> list[Curves]:
    """Return the bias curves, one for all layers with equal bias. Empty if no bias depends on positions alone."""
    found: list[Curves] = []
    for layer in range(scheme.dims.n_layer):
        for new in of_layer(scheme.layer(layer), layer + 1):
            same = [old for old in found if old.query == new.query and torch.equal(old.bias, new.bias)]
            if same:
                same[0].layers.append(layer + 1)
            else:
                found.append(new)
    return found


def of_layer(part: Scheme, layer: int) -> list[Curves]:
    """Return the curves of a layer: one by distance alone, or one for each of several queries."""
    length = part.dims.train_length
    last = MAX_DISTANCE * length if part.max_length is None else part.max_length - 1
    queries = sorted({min(last, max(1, place)) for place in (length // 4, length, 4 * length, last)})
    device = next(iter([*part.parameters(), *part.buffers()]), torch.empty(0)).device
    # distances of 0, the queries, and others that are evenly spaced on a log axis
    spread = torch.logspace(0, torch.log2(torch.tensor(float(max(last, 1)))).item(), 300, base=2.0)
    gap_N = torch.cat((torch.tensor([0, *queries]), spread.round().long().clamp(max=last))).unique()
    bias_HN = part.distance_bias(gap_N.to(device))
    if bias_HN is not None:
        return [Curves([layer], None, gap_N, bias_HN.float().cpu())]
    found = []
    for query in queries:
        near_N = gap_N[gap_N <= query]
        bias_1H1N = part.bias(torch.tensor([[query]], device=device), (query - near_N).to(device)[None])
        if bias_1H1N is None:
            return []
        found.append(Curves([layer], query, near_N, bias_1H1N[0, :, 0].float().cpu()))
    far = found[-1]
    if all(torch.allclose(far.bias[:, : len(near.gap)], near.bias, atol=1e-5) for near in found):
        return [Curves([layer], None, far.gap, far.bias)]
    return found


def picture(scheme: Scheme, about: str) -> Picture | None:
    """Return the picture, or None if no bias depends on positions alone."""
    found = curves(scheme)
    if not found:
        return None
    rows = [
        {"layers": ranges(panel.layers), "query": panel.query, "head": head, "distance": gap, "bias": value}
        for panel in found
        for head, bias_N in enumerate((panel.bias + 0.0).tolist(), start=1)  # no -0.0
        for gap, value in zip(panel.gap.tolist(), bias_N, strict=True)
    ]
    title = title_of(found, scheme.dims.train_length)
    return Picture(*rendered(lambda: draw_bias(found, title, about, scheme), title), rows)


def title_of(found: list[Curves], length: int) -> str:
    """Return a title with the range over heads at the training length and at the largest distance."""
    furthest = max(int(panel.gap[-1]) for panel in found)

    def span(gap: int) -> str:
        values = torch.cat([panel.bias[:, panel.gap == gap].flatten() for panel in found if panel.gap[-1] == furthest])
        low, high = short(float(values.min())), short(float(values.max()))
        return low if low == high else f"{low} to {high}"

    near = min(length, furthest)
    words = f"Bias of the heads at distance {near:,}: {span(near)}"
    return words if furthest <= length else f"{words}; at {furthest:,}: {span(furthest)}"


def draw_bias(found: list[Curves], title: str, about: str, scheme: Scheme) -> "Figure":
    from matplotlib import colormaps

    queries, heads, length = len({panel.query for panel in found}), len(found[0].bias), scheme.dims.train_length
    columns = queries if queries > 1 else min(len(found), MAX_COLUMNS)
    rows = -(-len(found) // columns)
    everywhere = all(len(panel.layers) == scheme.dims.n_layer for panel in found)
    notes = [
        f"{about} · vertical: trained at {length:,}",
        f"One line per head; {'the same in every layer' if everywhere else 'layers count from 1'}.",
    ]
    low = min(float(panel.bias.min()) for panel in found)
    if low < MIN_BIAS:
        notes[1] += f" Cut at {short(MIN_BIAS)}, where a key keeps a ten-millionth of its weight."
    figure = new_figure(8.2 if columns == 1 else 2 + 2.4 * columns, 1.6 + (4 if rows == 1 else 2.6 * rows))
    write_heading(figure, title, notes)
    (part,) = figure.subfigures(1, 1, squeeze=False).flat
    panels = part.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, panel in zip(panels, found, strict=False):
        axes.axvline(length, **REFERENCE)
        for head, bias_N in enumerate(panel.bias):
            colour = colormaps["viridis"](0.88 * head / max(heads - 1, 1))
            axes.plot(panel.gap, bias_N, color=colour, linewidth=1.8, label=f"head {head + 1}", zorder=3)
        axes.set_title(panel.name(everywhere))
    for axes in panels[len(found) :]:
        axes.remove()
    set_log_scale(panels[0], "x", linear=1)
    high = max(float(panel.bias.max()) for panel in found)
    air = 0.04 * max(high - max(low, MIN_BIAS), 0.5)
    panels[0].set_ylim(max(low, MIN_BIAS) - air, high + air)
    part.supylabel("bias, added to the logit", size="medium")
    part.supxlabel("distance, tokens (log scale from 1)", size="medium")
    part.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure
