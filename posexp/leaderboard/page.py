"""LEADERBOARD.md and its picture. Sizes are in inches."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from posexp.leaderboard.ranking import RULE, Entry, Standard
from posexp.leaderboard.track import Track
from posexp.output.figure import ROW, new_figure, rendered, set_log_scale, shortened, write_heading
from posexp.output.grid import Cell, Grid
from posexp.output.style import QUIET, looks_of
from posexp.output.text import escape, one_line
from posexp.report.curves import draw_points
from posexp.report.metric import EXACT_MATCH, Value
from posexp.report.verdict_table import in_percent, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Board = tuple[Track, Standard, list[Entry]]
BASE = "none"  # the curve whose training time is 1
MARKERS = ("o", "s", "D", "^")  # of the lengths
WIDE, AROUND = 8.5, 1.5  # of the figure, and the space for title and axis around the rows of a track


def page(boards: list[Board], skipped: list[str]) -> str:
    """Return LEADERBOARD.md."""
    picture = "\n![Captured gain of each entry by length](leaderboard.png)\n" if drawn(boards) else ""
    lines = "".join(f"\n{escape(line)}\n" for line in skipped)
    introduction = Path(__file__).with_name("page.md").read_text().replace("{RULE}", RULE)
    return "".join([introduction, picture, *map(section, boards), lines])


def section(board: Board) -> str:
    """Return the part of a track: what is fixed, and the table."""
    track, standard, entries = board
    fixed = ", ".join(f"`{key}={value}`" for key, value in track.fixed.items())
    targets = ", ".join(f"`{one_line(name)}`" for name in dict.fromkeys(standard.targets.values()))
    time = f"- Time: [bench/{track.timed}](bench/{track.timed}/README.md).\n" if isinstance(track.timed, str) else ""
    unit, at = ("size", f"size {track.length}") if track.is_task else ("length", f"{track.length} tokens")
    return f"""
## {escape(track.title)}

- Fixed: {fixed}. May vary: scheme, window, temperature, mixer, {", ".join(f"`{glob}`" for glob in track.vary)}.
- Token store `{one_line(standard.store)}`, targets {targets}.
- Gate: {track.gate:g} {track.gap} at {at}. Primary {unit}: {track.primary}.
{time}- `posexp train -m +experiment={track.experiment} seed=0,1,2,3,4 +scheme=<name>`

{grid(track, entries).markdown()}
"""


def grid(track: Track, entries: list[Entry]) -> Grid:
    """Return the table of a track, with a line above the entries that are not tested."""
    lengths = [f"{length} ({length // track.length} ×)" for length in track.lengths]
    known = "exact match" if track.is_task else "loss"
    usable = ["usable size"] if track.is_task else []
    heads = ["rank", "curve", f"{known} at {track.length}", *lengths, *usable, "seeds", "time", "commit"]
    times = training_times(entries) if track.timed else {}
    rows: list[list[Cell]] = []
    for rank, entry in enumerate(entries, start=1):
        if entry.failed and not (rank > 1 and entries[rank - 2].failed):
            rows.append(["", "not tested:", *[""] * (len(heads) - 2)])
        loss = f"{entry.loss:.4f}\nexcess {entry.excess:.4f}, at most {entry.upper:.4f}"
        if track.is_task:
            at_most = "" if math.isnan(entry.upper) else f", at most {100 * min(entry.upper, 1):.1f} %"
            loss = f"{cell(entry, track.length)}\nwrong {100 * entry.excess:.1f} %{at_most}"
        cells = ["–" if entry.failed else cell(entry, length) for length in track.lengths]
        cells += ["–" if entry.failed else str(entry.usable or "–")] if track.is_task else []
        place = "–" if entry.failed else str(rank)
        last = [str(entry.seeds), times.get(entry.curve, "–"), ", ".join(entry.commits)]
        rows.append([place, one_line(entry.curve), loss, *cells, *last])
    return Grid(heads, rows, names=2)


def cell(entry: Entry, length: int) -> str:
    """Return the captured gain, and the change with its verdict; for a task, exact match."""
    if length in entry.shares and length not in entry.verdicts:
        return share(entry.shares[length])
    verdict = entry.verdicts.get(length)
    if verdict is None or verdict.cropped is None:
        return verdict.word if verdict else "–"
    lines = [f"captured {share(verdict.captured)}"] if verdict.captured else []
    return "\n".join([*lines, f"{verdict.word} {in_percent(verdict.cropped)}"])


def training_times(entries: list[Entry]) -> dict[str, str]:
    """Return the training time per token of each curve beside BASE's, or the fastest one's, with its rank.

    {} if the runs are of several devices.
    """
    speeds = {entry.curve: entry.speed for entry in entries if entry.speed}
    if not speeds or len(frozenset().union(*(entry.devices for entry in entries))) > 1:
        return {}
    base = speeds.get(BASE, max(speeds.values()))
    order = sorted(speeds.values(), reverse=True)
    found = {}
    for entry in entries:
        if entry.speed:
            time, rank = base / entry.speed, order.index(entry.speed) + 1
            error = f" ± {time * entry.speed_error:.2f}" if entry.speed_error else ""
            found[entry.curve] = f"{time:.2f}{error} ({rank})"
    return found


def drawn(boards: list[Board]) -> list[tuple[Track, list[Entry]]]:
    """Return the tracks with ranked entries, and those."""
    found = [(track, [entry for entry in entries if not entry.failed]) for track, _, entries in boards]
    return [(track, entries) for track, entries in found if entries]


def picture(boards: list[Board]) -> bytes | None:
    """Return the picture as PNG, None without a ranked entry. Equal boards give equal bytes."""
    shown = drawn(boards)
    return rendered(lambda: draw(shown), "Leaderboard")[0] if shown else None


def draw(shown: list[tuple[Track, list[Entry]]]) -> "Figure":
    """Draw one panel per track, with one row per curve, best on top, and one mark per length."""
    heights = [AROUND + 1.6 * ROW * len(entries) for _, entries in shown]
    figure = new_figure(WIDE, 0.5 + sum(heights))
    looks = looks_of([entry.curve for _, entries in shown for entry in entries])
    panels = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (track, entries) in zip(panels, shown, strict=True):
        for i, (marker, length) in enumerate(zip(MARKERS, track.lengths, strict=True)):
            axes.plot([], [], marker, color=QUIET, label=f"{length // track.length} ×")
            for y, entry in enumerate(entries):
                if (one := entry.shares.get(length)) is not None:
                    low, high = (None if bound is None else 100 * bound for bound in (one.low, one.high))
                    value = Value(100 * one.value, low, high)
                    draw_points(axes, {y + 0.2 * (i - 1.5): value}, marker, looks[entry.curve].colour)
        axes.set_title(track.title)
        axes.legend(
            title="size / training size" if track.is_task else "length / training length",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
        axes.set_yticks(range(len(entries)), [shortened(entry.curve) for entry in entries])
        axes.set_ylim(len(entries) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=QUIET, linewidth=1)
        axes.axvline(100, color=QUIET, linewidth=1, linestyle=":")
        axes.set_xlabel(EXACT_MATCH.axis if track.is_task else "captured share of the possible gain in percent")
        if axes.get_xlim()[0] < -300:
            set_log_scale(axes, "x", linear=100, sign="+")
    lines = "lines: 95 % intervals" + "; for a task, lowest to highest seed" * any(track.is_task for track, _ in shown)
    write_heading(figure, "What each curve makes of context beyond its training length", [lines])
    return figure
