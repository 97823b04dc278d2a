"""The bias that a scheme adds to the logits, by distance.

Shape suffixes: N distances, H heads.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posexp.output import sheet
from posexp.output.sheet import NOTE, Picture, look, ranges, short, trained_at
from posexp.schemes import Scheme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DISTANCE = 16  # in training lengths
MIN_BIAS = -16.0  # logits: e^-16 is a ten-millionth of the weight of a key without bias
MAX_COLUMNS = 5


@dataclass(frozen=True)
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

    def at(self, gap: int) -> Tensor:
        """Return the bias, [H], at the largest drawn distance of at most `gap`."""
        return self.bias[:, int((self.gap <= gap).sum()) - 1]


def distances(furthest: int, length: int) -> Tensor:
    """Return distances, [N] int64: 0, then evenly spaced on a log axis up to `furthest`, and the training length."""
    spread = torch.logspace(0, torch.log2(torch.tensor(float(max(furthest, 1)))).item(), 300, base=2.0)
    inside = [gap for gap in (0, 1, length, furthest) if gap <= furthest]
    return torch.cat((torch.tensor(inside), spread.round().long().clamp(max=furthest))).unique()


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
    length = part.dims.train_length
    last = MAX_DISTANCE * length if part.max_length is None else part.max_length - 1
    device = next(iter([*part.parameters(), *part.buffers()]), torch.empty(0)).device
    gap_N = distances(last, length)
    bias_HN = part.distance_bias(gap_N.to(device))
    if bias_HN is not None:
        return [Curves([layer], None, gap_N, bias_HN.float().cpu())]
    found = []
    for query in sorted({min(last, max(1, place)) for place in (length // 4, length, 4 * length, last)}):
        gap_N = distances(query, length)
        key_1N = (query - gap_N).to(device)[None]
        bias_1H1N = part.bias(torch.tensor([[query]], device=device), key_1N)
        if bias_1H1N is None:
            return []
        found.append(Curves([layer], query, gap_N, bias_1H1N[0, :, 0].float().cpu()))
    return by_distance_alone(part, found, device)


def by_distance_alone(part: Scheme, found: list[Curves], device: torch.device) -> list[Curves]:
    """Merge the curves of several queries into one if they are equal."""
    far = found[-1]
    for near in found[:-1]:
        key_1N = (int(far.query or 0) - near.gap).to(device)[None]
        same_1H1N = part.bias(torch.tensor([[far.query]], device=device), key_1N)
        assert same_1H1N is not None
        if not torch.allclose(same_1H1N[0, :, 0].float().cpu(), near.bias, atol=1e-5):
            return found
    return [Curves(far.layers, None, far.gap, far.bias)]


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
    return sheet.picture(lambda: draw_bias(found, title, about, scheme), title, rows)


def title_of(found: list[Curves], length: int) -> str:
    """Return a title with the range over heads at the training length and at the largest distance."""
    furthest = max(int(panel.gap[-1]) for panel in found)
    reaching = [panel for panel in found if panel.gap[-1] == furthest]

    def span(gap: int) -> str:
        values = torch.cat([panel.at(gap) for panel in reaching])
        low, high = short(float(values.min())), short(float(values.max()))
        return low if low == high else f"{low} to {high}"

    words = f"Bias of the heads at distance {min(length, furthest):,}: {span(length)}"
    return words if furthest <= length else f"{words}; at {furthest:,}: {span(furthest)}"


def draw_bias(found: list[Curves], title: str, about: str, scheme: Scheme) -> "Figure":
    length, n_layer = scheme.dims.train_length, scheme.dims.n_layer
    queries = len({panel.query for panel in found})
    columns = queries if queries > 1 else min(len(found), MAX_COLUMNS)
    everywhere = all(len(panel.layers) == n_layer for panel in found)
    alone = everywhere and len(found) == 1
    size = (7.6, 4.1) if columns == 1 else (max(2.2, 8.4 / columns), 2.4)
    notes = [about, f"One line per head; {'the same in every layer' if everywhere else 'layers count from 1'}."]
    low = min(float(panel.bias.min()) for panel in found)
    high = max(float(panel.bias.max()) for panel in found)
    if low < MIN_BIAS:
        notes[1] += f" Cut at {short(MIN_BIAS)}, where a key keeps a ten-millionth of its weight."
    rows = -(-len(found) // columns)
    figure, panels = sheet.sheet(title, notes, (rows, columns), size, over=0.25 if alone else 0.45)
    every = [axes for row in panels for axes in row]
    air = 0.04 * max(high - max(low, MIN_BIAS), 0.5)
    for i, (axes, panel) in enumerate(zip(every, found, strict=False)):
        draw_panel(axes, panel, length, int(max(p.gap[-1] for p in found)))
        axes.set_ylim(max(low, MIN_BIAS) - air, high + air)
        if not alone:
            axes.set_title(panel.name(everywhere), size=NOTE + 0.5, loc="left", pad=14)
        if i % columns == 0:
            axes.set_ylabel("bias, added to the logit", size=NOTE + 1)
        if i + columns >= len(found):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("distance, tokens" + " (log scale from 1)" * (columns < 3), size=NOTE + 1)
    for axes in every[len(found) :]:
        axes.remove()
    every[min(columns, len(found)) - 1].legend(
        loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=NOTE + 0.5, borderaxespad=0
    )
    return figure


def draw_panel(axes: "Axes", panel: Curves, length: int, furthest: int) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes.set_xscale("symlog", base=10, linthresh=1, linscale=0.3)
    axes.set_xlim(0, furthest * 1.12)
    ticks = [0, *(10**power for power in range(9) if 10**power <= furthest)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:,}" for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    trained_at(axes, length, f"trained at {length}")
    for head, bias_N in enumerate(panel.bias):
        axes.plot(panel.gap, bias_N, linewidth=1.8, label=f"head {head + 1}", zorder=3, **look(head))
