"""Rows with known numbers become the pictures that posexp report promises."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from support.reports import (
    MIXED,
    MIXED_SETS,
    SEEDS,
    SETS,
    judged,
    labels,
    looks,
    paired,
    picture_words,
    row,
    task,
    verdict,
    written,
)

from posexp.config.sections import config_dir
from posexp.errors import Misuse
from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.verdicts import TOO_FEW, Place
from posexp.output.figure import new_figure, rendered, set_log_scale, shortened, spread_heights, wrapped
from posexp.output.style import COLOURS, FAMILIES, family_of, looks_of, scheme_looks
from posexp.output.style import VERDICTS as COLOUR_OF
from posexp.report import Table, by_protocol, change, curves, finding, forest, pictures, ranking, tables, windows
from posexp.report.metric import CHANGE, PPL, percent

SCHEMES = sorted(path.stem for path in (config_dir() / "scheme").glob("*.yaml"))
DEFAULT_FIVE = ("sinusoidal", "learned", "rope", "xpos", "alibi")


# what deuteranopes and protanopes see of linear RGB (Machado et al. 2009), and OKLab's two steps
SIGHTS = (
    np.eye(3),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
)
CONES = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
LAB = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])


CHANGING = [
    row(f"{curve}-s{seed}-aa", n, 20.0 * (1 + seed) * growth ** math.log2(n / 128), documents=8)
    for curve, growth in (("alibi", 0.97), ("rope", 3.0))
    for seed in (0, 1)
    for n in (64, 128, 256, 512)
]


def svg_of(draw: Any, *values: Any, **options: Any) -> str:
    return rendered(lambda: draw(*values, **options), "a title")[1].decode()


def crosses(svg: str) -> int:
    """How many × marks an SVG has: matplotlib draws each as a <use> of one path of two strokes."""
    strokes = set(re.findall(r'<path id="(\w+)" d="M [-\d.]+ [-\d.]+ \nL [-\d.]+ [-\d.]+ \nM', svg))
    return sum(svg.count(f'xlink:href="#{name}"') for name in strokes)


def test_every_failure_is_a_cross_in_the_picture_and_every_curve_is_named(tmp_path: Path) -> None:
    rows = [*MIXED, row("none-s0-dd", 128, None, "undefined"), row("none-s0-dd", 256, None, "out of memory")]
    _, _, svg = written(rows, tmp_path)
    words = picture_words(svg)
    assert {"alibi", "rope", "rope: 2/3 ok, non-finite", "learned: undefined"} <= set(words)
    assert "none: undefined; out of memory" in words and any("trained at 128" in text for text in words)
    assert crosses(svg) == 1 + 1 + 2  # rope, learned, and none twice
    _, _, svg = written(SEEDS, tmp_path)
    assert crosses(svg) == 0


def test_panels_agree_on_the_look_of_a_curve_and_no_two_curves_look_alike() -> None:
    rows = [row(f"r{i:02}-s0-aa", 128, 20.0) for i in range(40)]
    more = [row(f"r{i:02}-s0-aa", 128, 20.0, protocol="sliding") for i in range(5, 40)]
    found = looks(tables(rows + more, {}))
    assert len(set(found.values())) == 40
    assert found == looks(tables(more + rows, {}))


def test_a_curve_keeps_its_look_whatever_stands_beside_it() -> None:
    found = looks_of([*SCHEMES, "mine", "transformers Llama (rope)"])
    assert all(looks_of([label])[label] == look for label, look in found.items())
    assert {name for name, _ in scheme_looks()} == set(SCHEMES), (
        "the YAML of each scheme has a line # look: family place"
    )
    assert len({(found[name].colour, found[name].marker) for name in SCHEMES}) == len(SCHEMES)


def test_variants_of_a_scheme_have_its_colour_and_marker_and_their_own_dash() -> None:
    names = ["rope", "rope-bca", "rope (base=500.0)", "rope · window bca 64"]
    found = looks_of(["alibi", "mine", *names])
    assert {(found[name].colour, found[name].marker) for name in names} == {
        (found["rope"].colour, found["rope"].marker)
    }
    assert len({str(found[name].dash) for name in names}) == 4 and found["rope"].dash == "-"
    many = [f"rope (base={n})" for n in range(40)]
    assert {look.colour for look in looks_of(many).values()} == {found["rope"].colour}
    assert len(set(looks_of(many).values())) == 40


def linear_rgb(colour: str) -> np.ndarray:
    share_3 = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(share_3 <= 0.04045, share_3 / 12.92, ((share_3 + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    dark, light = sorted(float(linear_rgb(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def difference(one: str, other: str, sight: np.ndarray) -> float:
    """The distance of two colours in OKLab, in percent: 2 is just visible."""
    seen_ = [LAB @ np.cbrt(CONES @ np.clip(sight @ linear_rgb(colour), 0, 1)) for colour in (one, other)]
    return 100 * float(np.linalg.norm(seen_[0] - seen_[1]))


def test_families_are_told_apart_by_every_eye_on_white_and_on_the_dark_page() -> None:
    assert all(contrast(colour, page) > 2.5 for colour in COLOURS for page in ("#ffffff", "#16181c"))
    first = [shades[0] for shades in FAMILIES.values()]
    for sight in SIGHTS:
        assert all(difference(*pair, sight) > 8 for pair in combinations(first, 2))
    found = [looks_of([name])[name] for name in DEFAULT_FIVE]
    assert all(
        difference(a.colour, b.colour, np.eye(3)) > 10 and a.marker != b.marker for a, b in combinations(found, 2)
    )


def test_looks_import_neither_torch_nor_matplotlib() -> None:
    program = "import sys; from posexp.output.style import looks_of; looks_of(['rope']); "
    program += "print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def visible_ticks(axes: Any) -> list[str]:
    """The labels of the ticks of a vertical axis, from the bottom up."""
    bottom, top = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [label.get_text() for tick, label in sorted(ticks, key=lambda pair: pair[0]) if bottom <= tick <= top]


def tick_labels(low: float, high: float, **options: Any) -> list[str]:
    """The labels of an axis that shows the two numbers."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.plot([1, 2], [low, high])
    set_log_scale(axes, "y", **options)
    figure.draw_without_rendering()
    return visible_ticks(axes)


@pytest.mark.parametrize(("low", "high"), [(20, 20.5), (18, 45), (15, 900), (19, 140_000), (1.5, 1e12), (3, 1e200)])
def test_the_perplexity_axis_has_a_handful_of_plain_labels(low: float, high: float) -> None:
    labels_ = tick_labels(low, high)
    assert 3 <= len(labels_) <= 14 and len(set(labels_)) == len(labels_)
    assert all(re.fullmatch(r"[\d,.]+(e−?\d+)?", label) for label in labels_), labels_


def test_notes_break_between_facts() -> None:
    assert wrapped("dashed: trained at 128 · 1,024 targets · stride 32 · 3 seeds", 3, 9) == (
        "dashed: trained at 128 · 1,024 targets ·\nstride 32 · 3 seeds"
    )
    assert wrapped("1,024 targets · stride 32", 9, 9) == "1,024 targets · stride 32"


@pytest.mark.parametrize(
    ("wanted", "step"),
    [([], 0.1), ([0.5], 0.1), ([0.9, 0.89, 0.88, 0.2], 0.1), ([0.05, 0.04, 0.03], 0.1), ([1.0] * 30, 0.05)],
)
def test_names_at_the_ends_of_curves_never_overlap_and_stay_in_order(wanted: list[float], step: float) -> None:
    found = spread_heights(wanted, step)
    assert len(found) == len(wanted) and all(height >= -1e-9 for height in found)
    assert all(a - b >= step - 1e-9 for a, b in pairwise(found))
    apart = all(a - b >= step for a, b in pairwise(wanted))
    assert found == wanted if apart else found != wanted


def test_no_picture_mixes_two_sets() -> None:
    found = tables(MIXED_SETS, labels(MIXED_SETS))
    svgs = {name: part.decode() for name, part in pictures.draw(found).items() if name.endswith("svg")}
    hashes = {name: re.findall("[a-f]{2}00....", " ".join(picture_words(svg))) for name, svg in svgs.items()}
    assert hashes["curves.svg"] == ["aa00near"]
    protocols = by_protocol.find_protocols([finding.as_changes(table) for table in found])
    assert protocols is not None
    told = [table.targets_hashes[0] for table in protocols.drawn]
    assert set(hashes["others.svg"]) == {of_set.targets_hash for of_set in SETS[1:]} - set(told)
    for axes, of_set in zip(curves.draw_curves(found[1:5], looks(found)).axes, SETS[1:5], strict=True):
        drawn = points_of(axes, looks(found))
        assert set(drawn) == set(of_set.growth) and {tuple(points) for points in drawn.values()} == {of_set.lengths}
        assert all(of_set.owns(level) for points in drawn.values() for level in points.values())


@pytest.mark.slow
def test_one_table_has_no_others(tmp_path: Path) -> None:
    written(MIXED_SETS, tmp_path)
    assert {"others.png", "others.svg"} <= {path.name for path in tmp_path.iterdir()}
    shown, _, _ = written(SEEDS, tmp_path)
    assert "Also measured" not in shown and not list(tmp_path.glob("others.*"))


def test_a_change_is_drawn_where_its_value_is() -> None:
    values = [0.0, 0.1, -0.3, 0.999, 1.0, -1.0, 1.001, -7.5, 48.1, -100.0, 2988.0, 1e12, 1e306]
    levels = [CHANGE.level(value) for value in sorted(values)]
    assert levels == sorted(levels) and len(set(levels)) == len(levels)
    assert (CHANGE.level(0.5), CHANGE.level(10), CHANGE.level(-1000)) == pytest.approx((0.5, 2, -4))
    assert CHANGE.level(-1 - 1e-12) == pytest.approx(CHANGE.level(-1))  # without a step
    assert all(math.isnan(CHANGE.level(value)) for value in (None, math.inf, -math.inf))


@pytest.mark.parametrize(
    ("low", "high", "written_"),
    [
        (-0.9, 0.8, ["−1", "0", "+1"]),
        (-6, 12, ["−5", "−2", "−1", "0", "+1", "+2", "+5", "+10"]),
        (-1.2, 2e6, ["−1", "0", "+1", "+10", "+100", "+1,000", "+10,000", "+100,000", "+1e6"]),
    ],
)
def test_the_axis_of_changes_has_signs_and_is_logarithmic_on_both_sides(
    low: float, high: float, written_: list[str]
) -> None:
    assert tick_labels(min(low, -1), max(high, 1), linear=1, sign="+") == written_


@pytest.mark.parametrize("high", [10.0**e for e in (3, 7, 9, 12, 40, 150, 200)])
def test_the_axis_of_changes_has_a_handful_of_labels_however_far_one_explodes(high: float) -> None:
    found = tick_labels(-90, high, linear=1, sign="+")
    assert 4 <= len(found) <= 20 and "0" in found


def panels(rows: list[dict]) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """What is drawn in the two panels of the headline's picture, and the figure."""
    table, look_of = shown_of(rows)
    figure = change.draw_headline(table, look_of)
    return points_of(figure.axes[0], look_of), levels_of(figure.axes[1], table), figure


def points_of(axes: Any, look_of: dict[str, Any]) -> dict[str, dict[float, float]]:
    """The markers of each curve in a panel: value by length."""
    curve_of = {(look.colour, look.marker): curve for curve, look in look_of.items()}
    found: dict[str, dict[float, float]] = {}
    for line in axes.lines:
        curve = curve_of.get((str(line.get_color()), str(line.get_marker())))
        if curve and line.get_transform() == axes.transData:
            found.setdefault(curve, {}).update(zip(*line.get_data(), strict=True))
    return {curve: dict(sorted(points.items())) for curve, points in found.items()}


def levels_of(axes: Any, table: Table) -> dict[str, tuple[float, ...]]:
    """The level of each curve in the panel of levels, and the range of its seeds if that is drawn."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    found: dict[str, tuple[float, ...]] = {}
    for line in sorted(axes.lines, key=lambda line: len(line.get_xdata())):
        found[names[int(line.get_ydata()[0])]] = (*found.get(names[int(line.get_ydata()[0])], ()), *line.get_xdata())
    return found


def shown_of(rows: list[dict]) -> tuple[Table, dict[str, Any]]:
    pairs = paired(rows)
    shown = tables(rows, labels(rows), PPL, pairs.verdicts(), pairs.changes())
    return shown[0], looks(shown)


def bands(axes: Any) -> dict[float, list[tuple[float, float]]]:
    """(low, high) of the bands of a panel at each length, in order of their curves."""
    found: dict[float, list[tuple[float, float]]] = {}
    for band in (one for one in axes.collections if isinstance(one, PolyCollection)):
        ys: dict[float, list[float]] = {}
        for path in band.get_paths():
            for x, y in path.vertices:
                ys.setdefault(float(x), []).append(float(y))
        for x, of_x in ys.items():
            found.setdefault(x, []).append((min(of_x), max(of_x)))
    return found


def test_the_headline_is_drawn_as_the_change_from_the_own_training_length_beside_the_level() -> None:
    moved, level, figure = panels(CHANGING)
    at = {
        curve: {n: 100 * (growth ** math.log2(n / 128) - 1) for n in (64, 128, 256, 512)}
        for curve, growth in (("alibi", 0.97), ("rope", 3.0))
    }
    assert {curve: points for curve, points in moved.items()} == {
        curve: pytest.approx(points, abs=1e-3) for curve, points in at.items()
    }
    assert moved["rope"][128] == moved["alibi"][128] == 0
    mean = 20 * math.sqrt(2)  # of the two seeds
    assert level == {curve: pytest.approx((mean, 20, 40)) for curve in ("alibi", "rope")}
    figure.draw_without_rendering()
    left, right = figure.axes
    assert left.get_window_extent().width > 1.8 * right.get_window_extent().width
    assert left.get_window_extent().x1 < right.get_window_extent().x0
    assert left.get_ylabel() == CHANGE.axis and right.get_xlabel() == "perplexity\nat the training length"
    grey = [tuple(patch.get_extents().transformed(left.transData.inverted()).intervaly) for patch in left.patches]
    assert grey[0] == pytest.approx((-1, 1))  # within 1 %


def test_the_band_of_a_change_is_the_interval_of_its_pairs_and_begins_at_the_training_length() -> None:
    """Documents differ by more than a factor of two in perplexity, and seeds by two, which all lengths share."""
    _, _, figure = panels(CHANGING)
    changes = paired(CHANGING).changes()
    drawn = bands(figure.axes[0])
    for n in (64, 256, 512):
        for curve, (low, high) in zip(("alibi", "rope"), drawn[n], strict=True):
            one = changes[Place(curve, n, "ab12cd34ef56", None)]
            assert one.low is not None and one.high is not None
            assert (low, high) == pytest.approx((percent(one.low), percent(one.high)))
            assert high - low < 0.05 * abs(high + low) + 1
    assert drawn[128] == [(0, 0), (0, 0)]
    words = picture_words(svg_of(change.draw_headline, *shown_of(CHANGING)))
    assert any("band: 95 % over seeds and documents" in text for text in words)
    assert not any("range of the seeds" in text for text in words)


def test_the_interval_over_documents_of_a_single_seed_is_no_band_and_takes_no_room() -> None:
    single = [replace(r, ci_low=1.0, ci_high=9e5) for r in CHANGING if r.seed == 0]
    _, level, figure = panels(single)
    assert level == {"alibi": (pytest.approx(20),), "rope": (pytest.approx(20),)} and bands(figure.axes[0])
    words = picture_words(svg_of(change.draw_headline, *shown_of(single)))
    assert any("band: 95 % over seeds and documents" in text for text in words)
    assert not any("range of the seeds" in text for text in words)
    (table,) = tables(single, labels(single))
    figure = curves.draw_curves([table], looks([table]))
    assert bands(figure.axes[0]) == {}
    shares = [task("rope-s0-aa", 16, 0.8), task("rope-s0-aa", 32, 0.2)]
    (table,) = tables(shares, labels(shares))
    assert bands(curves.draw_curves([table], looks([table])).axes[0])[16] == [pytest.approx((49.02, 94.33), abs=0.01)]


def test_changes_within_one_percent_look_small() -> None:
    rows = [row(f"{c}-s0-aa", n, 20.0 + i * n / 1e5) for i, c in enumerate(("alibi", "rope")) for n in (128, 256)]
    _, _, figure = panels(rows)
    figure.draw_without_rendering()
    bottom, top = figure.axes[0].get_ylim()
    assert bottom < -1 and top > 1
    assert visible_ticks(figure.axes[0]) == ["−1", "0", "+1"]


@pytest.mark.parametrize(
    "rows",
    [
        [task(f"{curve}-s0-aa", n, 0.5) for curve in ("alibi", "rope") for n in (16, 32)],
        [row(f"{curve}-s0-aa", n, 20.0) for curve in ("alibi", "rope") for n in (256, 512)],
        [row(f"{curve}-s0-aa", 128, 20.0) for curve in ("alibi", "rope")],
        [row(f"{curve}-s0-aa", n, 20.0, protocol="nonoverlapping") for curve in ("alibi", "rope") for n in (128, 256)],
        [row("rope-s0-aa", 128, None, "non-finite"), row("rope-s0-aa", 256, 20.0)],
    ],
    ids=["task", "not at the training length", "only at it", "another protocol", "failed at it"],
)
def test_where_nothing_can_be_paired_the_headline_is_drawn_as_its_level(rows: list[dict], tmp_path: Path) -> None:
    _, _, svg = written(rows, tmp_path, pairs=paired(rows))
    words = picture_words(svg)
    (table,) = tables(rows, labels(rows))
    assert table.title in words and table.measure.label in words
    assert CHANGE.axis not in words and not any("within 1 %" in text for text in words)


def test_without_kept_losses_the_change_is_drawn_without_a_band_where_the_seeds_are_the_same(tmp_path: Path) -> None:
    rows = [row("rope-s0-aa", 128, 20.0), row("rope-s0-aa", 256, 30.0), row("nope-s0-aa", 128, 20.0)]
    rows += [row("nope-s1-aa", 128, 20.0), row("nope-s0-aa", 256, 40.0)]
    _, _, svg = written(rows, tmp_path)
    words = picture_words(svg)
    assert CHANGE.axis in words and not any("band" in text for text in words)
    (table,) = tables(rows, labels(rows))
    changes = {key: cell.change and round(percent(cell.change.value)) for key, cell in table.cells.items()}
    assert changes == {("rope", 128): 0, ("rope", 256): 50, ("nope", 128): 0, ("nope", 256): None}


def test_a_change_is_drawn_even_where_every_length_is_a_training_length_of_some_curve(tmp_path: Path) -> None:
    rows = [row(f"{c}-s0-aa", n, 20.0 + n, train_length=t) for c, t in (("a", 128), ("b", 256)) for n in (128, 256)]
    _, _, svg = written(rows, tmp_path, pairs=paired(rows))
    assert CHANGE.axis in picture_words(svg)
    (moved, _, _), (table, _) = panels(rows), shown_of(rows)
    assert moved["a"][128] == moved["b"][256] == 0 and moved["a"][256] > 1 and moved["b"][128] < -1
    assert table.cells["b", 128].change is not None


def test_a_curve_looks_the_same_in_every_picture_and_is_named_where_it_is_drawn(tmp_path: Path) -> None:
    rows = [row(f"{curve}-s0-aa", n, 20.0) for curve in ("alibi", "kerple", "rope") for n in (128, 256)]
    rows += [row("rope-s0-aa", n, 30.0, protocol="sliding") for n in (128, 256)]
    written(rows, tmp_path)
    colour = looks(tables(rows, labels(rows)))["rope"].colour.lower()
    others = (tmp_path / "others.svg").read_text()
    assert f"stroke: {colour}" in others and "rope" in picture_words(others)
    assert not {"alibi", "kerple"} & set(picture_words(others))


def test_names_at_the_right_of_the_change_have_room_beside_the_level() -> None:
    names = {f"r{i}-s0-aa": f"rope (base={10**i}, fraction=0.25, windows=16)" for i in range(9)}
    rows = [row(run, n, 20.0 + n, documents=8) for run in names for n in (128, 256)]
    pairs = paired(rows, names)
    (table,) = tables(rows, names, PPL, pairs.verdicts(), pairs.changes())
    figure = change.draw_headline(table, looks([table]))
    figure.draw_without_rendering()
    left, right = figure.axes
    edge = max(text.get_window_extent().x1 for text in left.texts if text.get_text() in names.values())
    assert edge < right.yaxis.get_tightbbox().x0


MANY = [
    row(f"{name}-s{seed}-aa", n, level * (1 + seed / 50) * growth ** math.log2(n / 128), documents=8)
    for name, level, growth in [("none", 30, 1.1), ("rope", 21, 1.6), ("xpos", 22, 1.2), ("alibi", 20, 1.0)]
    + [(f"c{i}", 23 + i, 1.3) for i in range(9)]
    for seed in range(3)
    for n in (128, 256, 2048)
]


def changed(rows: list[Any], curve_of: dict[str, str] | None = None) -> tuple[Table, Pairs]:
    """The headline of rows, as changes."""
    curve_of = curve_of or labels(rows)
    pairs = paired(rows, curve_of)
    return finding.as_changes(tables(rows, curve_of, PPL, pairs.verdicts(), pairs.changes())[0]), pairs


def test_curves_that_are_too_many_to_follow_are_ranked_instead(tmp_path: Path) -> None:
    _, _, svg = written(MANY, tmp_path, pairs=paired(MANY))
    assert not (tmp_path / "curves.svg").exists() and (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")
    words = picture_words(svg)
    assert {f"c{n}" for n in range(9)} | {"no positions", "rotary", "bias by distance", "other"} <= set(words)
    assert {"2 × the training length", "16 × the training length", "degrades"} <= set(words)
    written(MANY, tmp_path, pairs=paired(MANY))
    assert (tmp_path / "ranking.svg").read_text() == svg
    written([r for r in MANY if r.scheme != "c0"], tmp_path)
    assert not list(tmp_path.glob("ranking.*")) and (tmp_path / "curves.svg").exists()


def test_a_ranking_shows_levels_above_the_best_and_changes_with_intervals_by_verdict() -> None:
    table, pairs = changed(MANY)
    levels, base = ranking.relative_levels(table, pairs)
    assert base == "alibi" and levels["alibi"].value == 0
    assert levels["none"].value == pytest.approx(50, rel=0.01) and levels["none"].low and levels["none"].high
    assert levels["none"].low < levels["none"].value < levels["none"].high
    unpaired, _ = ranking.relative_levels(table, None)
    assert unpaired["none"].value == pytest.approx(50) and unpaired["none"].low is None
    assert ranking.longer(table) == [256, 2048]
    figure = ranking.draw_ranking(table, pairs)
    right = figure.axes[1]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    at = {
        (names[round(y)], str(line.get_marker())): (x, line.get_markerfacecolor())
        for line in right.lines
        if line.get_transform() == right.transData
        for x, y in zip(*line.get_data(), strict=True)
    }
    assert at["rope", "o"] == (pytest.approx(60, rel=0.01), COLOUR_OF["degrades"])
    assert at["alibi", "D"][0] == pytest.approx(0, abs=0.5)
    spans = [segment for one in right.collections if isinstance(one, LineCollection) for segment in one.get_segments()]
    assert len(spans) == 2 * 13


def test_a_ranking_is_by_family_and_change_and_curves_without_an_end_are_last() -> None:
    rows = [row("xpos-s0-aa", n, p) for n, p in ((128, 20.0), (256, 50.0))]
    rows += [row("rope-s0-aa", n, p) for n, p in ((128, 30.0), (256, 30.0))]
    rows += [row("p_rope-s0-aa", 128, 10.0), row("p_rope-s0-aa", 256, None, "undefined"), row("mine-s0-aa", 128, 9.0)]
    (table,) = tables(rows, labels(rows))
    table = finding.as_changes(table)
    levels, base = ranking.relative_levels(table, None)
    assert base == "mine"
    assert ranking.grouped(table, levels) == {"rotary": ["rope", "xpos", "p_rope"], "": ["mine"]}
    assert "undefined" in picture_words(svg_of(ranking.draw_ranking, table))
    shares = [task(f"{name}-s0-aa", 8, x) for name, x in (("a", 0.2), ("b", 0.9))]
    (table,) = tables(shares, labels(shares))
    assert finding.as_changes(table) is table and ranking.grouped(table, {}) == {"": ["b", "a"]}
    assert "exact match in percent" in picture_words(svg_of(ranking.draw_ranking, table))


@pytest.mark.parametrize("count", [1, 2, 6, 40])
def test_a_ranking_shows_two_lengths_beyond_training(count: int) -> None:
    rows = [row("a-s0-aa", 64 + 64 * n, 20.0, train_length=128) for n in range(count + 1)]
    (table,) = tables(rows, labels(rows))
    assert ranking.longer(finding.as_changes(table)) == {1: [128], 2: [192], 6: [256, 448], 40: [256, 2048]}[count]
    svg_of(ranking.draw_ranking, finding.as_changes(table))


def fills(axes: Any) -> dict[tuple[float, float], str]:
    """How each marker of a panel is filled, by its place."""
    kinds = {}
    for line in axes.lines:
        if line.get_transform() == axes.transData and line.get_marker() not in ("None", None):
            half, hollow = line.get_fillstyle() == "left", line.get_markerfacecolor() == "white"
            for x, y in zip(*line.get_data(), strict=True):
                kinds[float(x), round(float(y), 3)] = "half" if half else "hollow" if hollow else "full"
    return kinds


def test_an_unsure_point_never_looks_like_a_sure_one() -> None:
    verdicts = [
        verdict("alibi", 256, "unclear", math.log(1.1)),
        verdict("rope", 256, TOO_FEW, math.log(1.2)),
        verdict("xpos", 256, "degrades", math.log(1.3)),
    ]
    rows = [
        row(f"{c}-s0-aa", n, p * (n / 128)) for c, p in (("alibi", 20), ("rope", 30), ("xpos", 40)) for n in (128, 256)
    ]
    (table,) = judged(rows, verdicts)
    figure = curves.draw_curves([table], looks([table]))
    kinds = fills(figure.axes[0])
    assert {place: kind for place, kind in kinds.items() if place[0] == 256} == {
        (256.0, 40.0): "half",
        (256.0, 60.0): "hollow",
        (256.0, 80.0): "full",
    }
    assert {kind for place, kind in kinds.items() if place[0] == 128} == {"full"}
    words = " ".join(picture_words(svg_of(curves.draw_curves, [table], looks([table]))))
    assert "half filled: unclear" in words and f"hollow: {TOO_FEW}" in words


def test_titles_say_what_was_trained_and_what_was_found() -> None:
    table, _ = changed(MANY)
    assert finding.finding(table, "1 M parameters on books") == (
        "1 M parameters on books, trained at 128 tokens: at 16 times that length, alibi is unchanged; 12 curves degrade"
    )
    old = finding.as_changes(tables(MANY, labels(MANY))[0])
    assert finding.finding(old) == (
        "Trained at 128 tokens: at 16 times that length, perplexity changes by 0.0 % (alibi) to +555 % (rope)"
    )
    (only,) = tables(SEEDS, labels(SEEDS))
    assert finding.finding(only) == f"Trained at 128 tokens: {only.title}"
    words = {word: finding.phrase(word, ["rope"]) for word in ("uses", "ignores", "no headroom", "collapses", TOO_FEW)}
    assert words == {
        "uses": "rope uses longer context",
        "ignores": "rope ignores longer context",
        "no headroom": "rope: no headroom",
        "collapses": "rope collapses",
        TOO_FEW: f"rope: {TOO_FEW}",
    }
    assert finding.phrase("collapses", ["rope", "t5"]) == "rope and t5 collapse"


PROTOCOLS = {"same_targets": 1.0, "nonoverlapping": 0.9, "sliding": 1.2, "per_document": 1.01}
BY_PROTOCOL = [
    row(f"{curve}-s0-aa", n, 20.0 * (growth * times) ** math.log2(n / 128), protocol=protocol, targets_hash=protocol)
    for protocol, growth in PROTOCOLS.items()
    for curve, times in (("alibi", 1.0), ("rope", 2.0))
    for n in (128, 256, 512)
]


def test_each_panel_of_protocols_is_a_curve_and_each_line_a_protocol_against_the_training_length() -> None:
    found = by_protocol.find_protocols([*map(finding.as_changes, tables(BY_PROTOCOL, labels(BY_PROTOCOL)))])
    assert found is not None and list(found.tables) == list(PROTOCOLS)
    figure = by_protocol.draw_protocols(found)
    # protocols disagree on the sign of alibi's change
    assert [axes.get_title() for axes in figure.axes] == ["alibi", "rope"]
    for axes, times in zip(figure.axes, (1.0, 2.0), strict=True):
        drawn = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in axes.lines}
        for name, growth in PROTOCOLS.items():
            change_of = {1.0: 0.0, 2.0: 100 * (growth * times - 1), 4.0: 100 * ((growth * times) ** 2 - 1)}
            assert drawn[name] == pytest.approx(change_of, abs=1e-9)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    title = by_protocol.title(found, "alibi")
    assert title.startswith("Same weights, another protocol, another conclusion: alibi at 4 times")
    assert "−19.0 % (nonoverlapping) to +44.0 % (sliding)" in title


def test_protocols_are_a_picture_from_three_protocols_and_lengths_on_and_of_at_most_eight_curves() -> None:
    for rows, drawn in (
        (BY_PROTOCOL, True),
        ([r for r in BY_PROTOCOL if r.protocol != "sliding"], True),
        ([r for r in BY_PROTOCOL if r.protocol not in ("sliding", "per_document")], False),
        ([r for r in BY_PROTOCOL if r.length < 512], False),
    ):
        assert ("protocols.svg" in pictures.draw(tables(rows, labels(rows)))) == drawn
    many = [replace(r, run=f"c{i}-s0-aa", scheme=f"c{i}") for r in BY_PROTOCOL if r.scheme == "rope" for i in range(11)]
    words = picture_words(pictures.draw(tables(many, labels(many)))["protocols.svg"].decode())
    assert sum(word in {f"c{i}" for i in range(11)} for word in words) == by_protocol.MOST == 8
    assert any("3 curves omitted" in word for word in words)


WINDOWED = [
    row(
        f"{curve}-s{seed}-aa", n, 20.0 * growth ** math.log2(n / 128), window=window, trained_window="full", documents=8
    )
    for curve, grows in (("alibi", 1.0), ("rope", 1.5))
    for window, growth in (("full", grows), ("bca 64", 0.999))
    for seed in range(3)
    for n in (128, 512, 1024)
]


def test_a_transform_at_one_longer_length_is_a_dumbbell_and_at_two_a_line() -> None:
    rows = [
        row("rope-s0-aa", n, 20.0 * (1 if n == 128 else growth), transform=transform, documents=8)
        for transform, growth in (("", 2.0), ("ntk", 1.1), ("pi", 1.4), ("yarn", 1.2))
        for n in ((128, 192, 256) if transform in ("", "yarn") else (128, 192))
    ]
    table, _ = changed(rows)
    assert windows.find_windows(table) == [("rope", "rope · ntk"), ("rope", "rope · pi")]
    assert "rope · yarn" in picture_words(pictures.draw(tables(rows, labels(rows)))["curves.svg"].decode())


def test_windows_are_dumbbells_at_four_times_and_the_longest_and_leave_the_headline() -> None:
    table, pairs = changed(WINDOWED)
    found = windows.find_windows(table)
    assert found == [("alibi", "alibi · window bca 64"), ("rope", "rope · window bca 64")]
    figure = windows.draw_windows(table, found, looks([table]))
    assert [axes.get_title() for axes in figure.axes] == [
        "4 times the training length, 512 tokens",
        "8 times the training length, 1,024 tokens",
    ]
    for axes, doublings in zip(figure.axes, (2, 3), strict=True):
        kinds = fills(axes)
        at = {(y, kind): x for (x, y), kind in kinds.items()}
        assert at[0.0, "hollow"] == pytest.approx(100 * (1.5**doublings - 1), rel=0.02)  # rope, the largest, is on top
        assert at[0.0, "full"] == pytest.approx(100 * (0.999**doublings - 1), abs=0.2)
    assert "up to +238 % as trained, up to −0.3 % with the change" in windows.title(table, found, 1024)
    shown = tables(WINDOWED, labels(WINDOWED), PPL, pairs.verdicts(), pairs.changes())
    drawn = pictures.draw(shown, pairs)
    assert "windows.png" in drawn and not any("window" in word for word in picture_words(drawn["curves.svg"].decode()))
    assert windows.find_windows(changed(MANY)[0]) == []


OPTIONS = {f"r{i}": f"rope (base={10**i})" if i else "rope" for i in range(8)}
FOREST = [
    row(f"{name}-s{seed}-aa", n, 20.0 * (1.1 + i / 10 + seed / 20) ** (n > 128), protocol=protocol, documents=8)
    for i, name in enumerate(OPTIONS)
    for seed in range(3)
    for protocol in ("same_targets", "sliding")
    for n in (128, 256)
]


def test_a_scheme_with_many_options_is_a_forest_with_the_seeds_of_its_default() -> None:
    curve_of = {r.run: OPTIONS[r.scheme or ""] for r in FOREST}
    pairs = paired(FOREST, curve_of)
    shown = tables(FOREST, curve_of, PPL, pairs.verdicts(), pairs.changes())
    found = forest.find_forest([*map(finding.as_changes, shown)])
    assert found is not None and found.base == "rope" and found.times == 2 and set(found.changes) == {*OPTIONS.values()}
    assert found.seeds == pytest.approx((10, 20))
    one = found.changes["rope (base=10)"]["same_targets"]
    assert one.value == pytest.approx(25, abs=0.5) and one.low is not None and one.high is not None
    assert found.changes["rope (base=10)"]["sliding"].low is None
    figure = forest.draw_forest(found)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["rope", *(f"base={10**i}" for i in range(7, 0, -1))]
    drawn = pictures.draw(shown, pairs)
    assert set(drawn) == {"forest.png", "forest.svg"}  # two lengths are no curve
    few = [r for r in FOREST if r.scheme not in ("r6", "r7")]
    assert forest.find_forest([*map(finding.as_changes, tables(few, curve_of))]) is None


def test_published_curves_are_dashed_at_the_same_multiple_of_their_training_length(tmp_path: Path) -> None:
    path = tmp_path / "reference.csv"
    assert change.read_references(path) == []
    path.write_text("curve,length,ppl,source\nrope,512,20,Some 2021\nrope,1024,30,Some 2021\nrope,8192,90,Some 2021\n")
    (reference,) = change.read_references(path)
    assert reference.changes(128) == {128: 0, 256: pytest.approx(50), 2048: pytest.approx(350)}
    table, look_of = shown_of(CHANGING)
    figure = change.draw_headline(table, look_of, references=[reference])
    dashed = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [128, 256]]
    assert [list(line.get_ydata()) for line in dashed] == [[0, pytest.approx(50)]]
    assert str(dashed[0].get_color()) == look_of["rope"].colour and dashed[0].get_linestyle() == "--"
    svg = svg_of(change.draw_headline, table, look_of, references=[reference])
    assert any("Some 2021" in word for word in picture_words(svg))
    for content in (
        "curve,length\nrope,1\n",
        "curve,length,ppl,source\nrope,0,20,x\n",
        "curve,length,ppl,source\na,1,-1,x\n",
    ):
        path.write_text(content)
        with pytest.raises(Misuse, match="must have the columns curve, length, ppl, source"):
            change.read_references(path)


def test_families_come_from_the_look_of_a_scheme() -> None:
    assert [family_of(label) for label in ("rope (base=5)", "alibi · window bca 64", "t5", "none", "mine")] == [
        *("rotary", "bias", "bias", "none", "")
    ]


def test_long_names_keep_their_ends() -> None:
    assert shortened("rope") == "rope"
    text = shortened("rope (data.paths=a-long-name.txt, data.valid=another-long-name.txt.xz)")
    assert len(text) == 48 and text.startswith("rope (data") and text.endswith("name.txt.xz)")
