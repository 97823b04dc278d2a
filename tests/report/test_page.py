"""The page of posexp report in a real browser: what it draws, what its buttons do, and that it trusts no name."""

import base64
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from posexp.evaluation.rows import COLUMNS, Row
from posexp.evaluation.statistics import Estimate
from posexp.evaluation.verdicts import Place, Verdict
from posexp.report.answer import answer
from posexp.report.metric import PPL
from posexp.report.metric import digits as number
from posexp.report.page import RunCard, page
from posexp.report.tables import Table, tables
from posexp.report.verdict_table import MARKS, in_percent

pytestmark = pytest.mark.slow

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")

MADE = {"posexp": "1.2.3", "commit": "abc123", "command": "posexp report group=books --html", "date": "2026-01-02"}
LENGTHS = (64, 128, 256, 512)
TARGETS = ("ab12cd34ef56", None)  # hash and stride
FAR = ("fa12cd34ef56", None)  # those of longer lengths, on which alibi and rope were measured again
PPLS = {"alibi": (55.0, 50.0, 50.1, 50.2), "rope": (54.0, 48.0, 70.0, 150.0), "learned": (60.0, 51.0, None, None)}

# Runs before everything else on the page: errors, and whatever the policy stopped.
WATCH = """
const complaints = [];
console.error = (...words) => complaints.push(words.join(" "));
addEventListener("error", (event) => complaints.push(String(event.message || event.target)), true);
addEventListener("unhandledrejection", (event) => complaints.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => complaints.push(`policy: ${event.violatedDirective}`));
"""
# What the questions of the tests are made of.
ASK = """
const all = (query, within = document) => [...within.querySelectorAll(query)];
const one = (query, within = document) => within.querySelector(query);
const texts = (query, within = document) => all(query, within).map((node) => node.textContent.trim());
const press = (id, value) => all(`#${id} button`).find((button) => button.dataset.value === value).click();
const scheme = (curve) => all("#schemes button").find((button) => button.dataset.curve === curve);
const paths = () => all("#chart g.curve").map((group) => group.dataset.curve).sort();
const vertices = (curve) => all("#chart g.curve").find((group) => group.dataset.curve === curve)
  .querySelector(".line").getAttribute("d").match(/[-\\d.]+ [-\\d.]+/g).map((pair) => pair.split(" ").map(Number));
const pointAt = (x, y) => {
  const box = one("#chart").getBoundingClientRect();
  const place = {clientX: box.left + x, clientY: box.top + y, bubbles: true};
  one("#chart").dispatchEvent(new PointerEvent("pointermove", place));
};
const numbers = (curve) => texts("td", all("#numbers-table tbody tr").find((row) => row.dataset.curve === curve));
const key = (name) => one("#chart").dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
"""


def row(curve: str, seed: int, length: int, ppl: float | None, **other: Any) -> Row:
    made: dict[str, Any] = dict.fromkeys(COLUMNS)
    made |= {"run": f"{curve}-s{seed}-00", "scheme": curve, "seed": seed, "train_length": 128, "length": length}
    made |= {
        "protocol": "same_targets",
        "stride": None,
        "window": "full",
        "targets": 2048,
        "targets_hash": TARGETS[0],
    }
    made |= {"status": "ok" if ppl else "undefined"}
    if ppl:
        nll = math.log(ppl)
        made |= {"nll": nll, "ppl": ppl, "bits_per_byte": 0.4 * nll, "ci_low": ppl * 0.9, "ci_high": ppl * 1.1}
    return Row.of(made | other)


def rows() -> list[Row]:
    """Two seeds of three curves: on the same targets, by position, and of a task; of two of them on far targets too."""
    found = [
        row(curve, 0, length, ppl, targets_hash=FAR[0], targets=100)
        for curve in ("alibi", "rope")
        for length, ppl in ((128, 900.0), (1024, 700.0))
    ]
    for curve, ppls in PPLS.items():
        for seed in (0, 1):
            for length, ppl in zip(LENGTHS, ppls, strict=True):
                found.append(row(curve, seed, length, ppl and ppl * (1 + 0.02 * seed)))
                place = {"protocol": "per_position", "stride": None, "targets_hash": "position", "targets": length}
                found.append(row(curve, seed, length, ppl, **place))
                if ppl:
                    task = {"protocol": "exact_match", "targets_hash": f"task{length}", "documents": 100}
                    found.append(row(curve, seed, length, ppl, **task, exact_match=50 / ppl))
    return found


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.01, value + 0.01, 0.005, 0.0004, 2, 8)


VERDICTS = [
    Verdict(Place("alibi", 256, *TARGETS), "ignores", "window", estimate(0.002), None),
    Verdict(Place("alibi", 512, *TARGETS), "unclear", "window", estimate(0.012), None),
    Verdict(Place("alibi", 1024, *FAR), "breaks", "cropped", estimate(0.75), None),
    Verdict(Place("rope", 256, *TARGETS), "breaks", "cropped", estimate(0.5), estimate(-0.25)),
    Verdict(Place("rope", 1024, *FAR), "uses", "cropped", estimate(-0.75), None),
    Verdict(Place("learned", 256, *TARGETS), "undefined", "", None, None),
]


def shown() -> list[Table]:
    made = rows()
    return tables(made, {r.run: r.scheme or "" for r in made}, PPL, VERDICTS)


def cards() -> list[RunCard]:
    text = "scheme:\n  _target_: posexp.schemes.{0}\n  base: 1\nmodel:\n  base: 1\nseed: {1}\n"
    return [
        RunCard(
            f"{curve}-s{seed}-00", curve, seed, text.format(curve, seed), {"packages": {"torch": "2.9"}, "seed": seed}
        )
        for curve in PPLS
        for seed in (0, 1)
    ]


def usual(**other: Any) -> str:
    given: dict[str, Any] = {"title": "books", "shown": shown(), "runs": cards(), "made": MADE}
    return page(**given | other)


def ask(text: str, folder: Path, question: str, address: str = "", width: int = 1280) -> dict[str, Any]:
    """What `question`, the body of a function run on the page, returns; the page must have had no complaint."""
    answer = (
        f"{ASK}\nconst answer = (() => {{ {question} }})();\n"
        'const answered = document.createElement("pre"); answered.id = "answered";\n'
        "answered.textContent = JSON.stringify({answer, complaints}); document.body.append(answered);"
    )
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in (WATCH, answer)
    )
    assert "script-src '" in text
    watched = text.replace("script-src '", f"script-src {hashes} '", 1)
    watched = watched.replace("<title>", f"<script>{WATCH}</script><title>", 1)
    watched = watched.replace("</body>", f"<script>{answer}</script></body>")
    (folder / "page.html").write_text(watched, encoding="utf-8")
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command += [f"--window-size={width},1600", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [*command, f"{(folder / 'page.html').as_uri()}{address}"], capture_output=True, text=True, timeout=120
    )
    found = re.search(r'<pre id="answered">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert said["complaints"] == []
    return said["answer"]


@needs_browser
def test_every_curve_with_a_value_is_drawn_and_every_failure_marked_at_the_top(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """return {paths: paths(), markers: all("#chart .marker").length, hollow: all("#chart .hollow").length,
        bands: all("#chart .band").length,
        crosses: all("#chart .failures").map((group) =>
          [group.dataset.curve, all(".cross", group).length, group.textContent]),
        strip: one("#chart .strip").getBoundingClientRect().bottom, highest: Math.min(...paths().flatMap((curve) =>
          vertices(curve).map(([, y]) => y))) + one("#chart").getBoundingClientRect().top,
        trained: texts("#chart text.small"), axis: texts("#chart .tick-x"), vertices: vertices("rope")};""",
    )
    assert said["paths"] == ["alibi", "learned", "rope"]
    assert (said["markers"], said["hollow"], said["bands"]) == (4 + 4 + 2, 1, 3)  # hollow where the verdict is breaks
    assert said["crosses"] == [["learned", 2, "undefined"]]
    assert said["strip"] < said["highest"]
    assert "trained at 128" in said["trained"]
    assert said["axis"] == ["128", "64", "256", "512"]  # the training length first: it is never left out
    xs, ys = zip(*said["vertices"], strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.03) == pytest.approx(xs[3] - xs[2], abs=0.03)
    per_nat = (ys[1] - ys[3]) / math.log(150 / 48)  # a log axis: distances are ratios
    assert ys[1] - ys[2] == pytest.approx(per_nat * math.log(70 / 48), abs=0.05)


@needs_browser
def test_a_curves_button_takes_it_away_and_brings_it_back(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """const seen = [], pressed = () => scheme("rope").getAttribute("aria-pressed");
        const look = () => seen.push([paths(), pressed(), location.hash]);
        const order = texts("#schemes button");
        look(); scheme("rope").click(); look(); scheme("rope").click(); look();
        one("#none").click(); look(); const empty = one("#chart").textContent; one("#all").click(); look();
        return {seen, order, empty, kinds: new Set(all("#schemes *").map((node) => node.tagName)).has("INPUT")};""",
    )
    everything = ["alibi", "learned", "rope"]
    assert [paths for paths, _, _ in said["seen"]] == [everything, ["alibi", "learned"], everything, [], everything]
    assert [pressed for _, pressed, _ in said["seen"]] == ["true", "false", "true", "false", "true"]
    assert said["seen"][1][2] == "#off=rope" and said["seen"][2][2] in ("", "#")
    assert said["order"] == ["rope", "learned", "alibi"]  # as they end, the highest first
    assert "All curves are hidden" in said["empty"]


@needs_browser
def test_a_measure_changes_the_axis_and_the_numbers(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """const found = {};
        for (const name of ["ppl", "nll", "bits_per_byte"]) {
          press("measure", name);
          found[name] = [one("#chart .axis-y").textContent, numbers("rope"), texts("#chart .tick-y"),
            texts("#measure [aria-pressed=true]")];
        }
        return found;""",
    )
    ppl = 48 * math.sqrt(1.02)  # exp of the mean loss of two seeds
    axis, cells, ticks, pressed = said["ppl"]
    assert (axis, pressed) == ("perplexity (log scale)", ["Perplexity"]) and "100" in ticks
    assert cells[1] == f"{number(ppl)}[48.00, 48.96]"
    assert cells[2] == f"{MARKS['breaks']}{number(70 * math.sqrt(1.02))}[70.00, 71.40]"  # marked with its verdict
    axis, cells, ticks, pressed = said["nll"]
    assert (axis, pressed) == ("loss, nats per token", ["Loss"]) and "4" in ticks and "100" not in ticks
    assert cells[1] == f"{math.log(ppl):.3f}[{math.log(48):.3f}, {math.log(48.96):.3f}]"
    axis, cells, _, pressed = said["bits_per_byte"]
    assert (axis, pressed) == ("bits per byte", ["Bits per byte"])
    assert cells[1] == f"{0.4 * math.log(ppl):.3f}[{0.4 * math.log(48):.3f}, {0.4 * math.log(48.96):.3f}]"


@needs_browser
def test_relative_to_its_control_a_curve_is_0_at_its_training_length(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """press("scale", "1"); press("measure", "nll");
        const even = Number(one("#chart .even").getAttribute("y1"));
        const nats = {even, rope: vertices("rope"), alibi: vertices("alibi"), numbers: numbers("rope"),
          ticks: texts("#chart .tick-y")};
        press("measure", "ppl");
        return {nats, ratio: numbers("rope"), hash: location.hash};""",
    )
    nats = said["nats"]
    for curve in ("rope", "alibi"):
        assert nats[curve][1][1] == pytest.approx(nats["even"], abs=0.01)  # at 128
        assert nats[curve][0][1] < nats["even"] - 1  # at 64 the loss is higher
    assert nats["numbers"][:2] == [f"+{math.log(54 / 48):.3f}", "0.000"]
    assert nats["numbers"][2] == f"{MARKS['breaks']}+0.500[+0.490, +0.510]"  # the verdict's, with its interval
    assert nats["numbers"][3] == f"+{math.log(150 / 48):.3f}"
    assert "0" in nats["ticks"] and "+1" in nats["ticks"]
    assert said["ratio"][1] == "×1.000" and said["ratio"][3] == f"×{number(150 / 48)}"
    assert said["hash"] == "#measure=ppl&relative=1"


@needs_browser
def test_where_lengths_score_other_targets_nothing_is_subtracted(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """press("scale", "1");
        const button = all("#scale button")[1];
        button.click();
        return {pressed: texts("#scale [aria-pressed=true]"), disabled: button.getAttribute("aria-disabled"),
          note: one("#chart-note").textContent, facts: one("#facts").textContent};""",
        address="#table=per_position~~position~",
    )
    assert (said["pressed"], said["disabled"]) == (["Absolute"], "true")
    assert "its own targets" in said["note"] and "64 to 512 targets" in said["facts"]


@needs_browser
def test_pointing_at_a_curve_tells_its_number(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """const [x, y] = vertices("rope")[2];
        pointAt(x + 4, y - 3);
        const pointed = [one("#tip").hidden, texts("#tip p")];
        key("ArrowRight"); const right = texts("#tip p");
        key("ArrowDown"); key("ArrowDown"); const down = texts("#tip p");
        key("Escape"); const gone = one("#tip").hidden;
        const cross = one("#chart .failures .cross").getAttribute("d").match(/[-\\d.]+/g).map(Number);
        pointAt(cross[0] + 4, cross[1] + 4);
        return {pointed, right, down, gone, failed: texts("#tip p")};""",
    )
    hidden, lines = said["pointed"]
    assert not hidden
    assert lines[:3] == ["rope", "256 tokens of context before a target", number(70 * math.sqrt(1.02))]
    assert lines[3] == "[70.00, 71.40] lowest and highest of 2 seeds"
    assert lines[4] == "breaks +64.9 % [+63.2, +66.5]"  # exp(0.5), exp(0.49), exp(0.51)
    assert said["right"][1:3] == ["512 tokens of context before a target", number(150 * math.sqrt(1.02))]
    assert said["down"][0] == "alibi" and said["gone"]
    assert said["failed"] == ["learned", "256 tokens of context before a target", "undefined"]


@needs_browser
def test_a_link_opens_the_same_view_again(tmp_path):
    text = usual()
    task = next(key for key in keys(text) if key.startswith("exact_match"))
    view = f"#table={task}&measure=exact_match&off=rope&heat=above&lines=differing&find=alibi"
    question = """return {table: one("#table").value, paths: paths(), axis: one("#chart .axis-y").textContent,
        numbers: numbers("alibi"), heat: texts("#heat-scale [aria-pressed=true]"),
        lines: texts("#lines [aria-pressed=true]"),
        runs: all(".run").filter((run) => !run.hidden).map((run) => run.dataset.run), hash: location.hash};"""
    said = ask(text, tmp_path, question, view)
    assert said["table"] == task and said["paths"] == ["alibi", "learned"]
    assert said["axis"] == "exact match, % of examples"
    assert said["numbers"][1].startswith(f"{100 * 50 / 50:.1f} %")
    assert said["heat"] == ["Above the lowest of the column"] and said["lines"] == ["Only what differs"]
    assert said["runs"] == ["alibi-s0-00", "alibi-s1-00"] and said["hash"] == view
    wrong = ask(text, tmp_path, question, "#table=none&measure=constructor&heat=__proto__&off=%3Cb%3E&x=%zz")
    assert wrong["paths"] == ["alibi", "learned", "rope"] and wrong["axis"] == "perplexity (log scale)"


def keys(text: str) -> list[str]:
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert data
    return [table["key"] for table in json.loads(data[1])["tables"]]


@needs_browser
def test_verdicts_have_their_word_difference_and_shuffled_control(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """const line = (curve) => all("#verdicts-table tbody tr").find((row) => row.dataset.curve === curve);
        const rope = one("button.verdict", line("rope"));
        rope.focus();
        const tip = texts("#tip p");
        rope.blur();
        return {head: texts("#verdicts-table thead th"), rope: texts("b, .value, .interval", line("rope")), tip,
          hidden: one("#tip").hidden,
          kinds: all("button.verdict").map((button) => button.className), usable: texts("#verdicts-table .usable"),
          none: texts("td", line("learned")), definition: one(".words").textContent};""",
    )
    assert said["head"] == ["curve", "256", "512", "usable length"]
    assert said["rope"][:2] == ["breaks", "+64.9 % [+63.2, +66.5]"] and "p < 0.001" in said["rope"]
    assert said["kinds"] == ["verdict ignores", "verdict unclear", "verdict none", "verdict breaks"]
    assert said["usable"] == ["≥ 512 ?", "128", "128"] and said["none"] == ["undefined", "–", "128"]
    assert "+0.500 [+0.490, +0.510] nats per token against the cropped control" in said["tip"]
    assert any(line.startswith("shuffled") and "−0.250 [−0.260, −0.240] nats" in line for line in said["tip"])
    assert said["hidden"] and "within 1 %" in said["definition"]


@needs_browser
def test_marks_verdicts_and_controls_follow_the_table_that_is_chosen(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """const look = () => ({
          head: texts("#verdicts-table thead th"), words: texts("#verdicts-table b"),
          usable: texts("#verdicts-table .usable"), marks: texts("#numbers-table .mark"), rope: numbers("rope"),
          hollow: all("#chart .hollow").length, options: texts("#table option")});
        const choose = (value) => { one("#table").value = value; one("#table").dispatchEvent(new Event("change")); };
        const first = look();
        choose("same_targets~~fa12cd34~");
        press("scale", "1"); press("measure", "nll");
        const far = look();
        choose("per_position~~position~");
        return {first, far, other: [texts("#verdicts-table p"), texts("#verdicts-table b")],
          answer: one("#answer").textContent};""",
    )
    first, far = said["first"], said["far"]
    assert first["head"] == ["curve", "256", "512", "usable length"] and first["hollow"] == 1
    assert first["words"] == ["ignores", "unclear", "undefined", "breaks"]
    assert first["marks"] == [MARKS[word] for word in ("ignores", "unclear", "breaks")]
    assert far["head"] == ["curve", "1024", "usable length"] and far["hollow"] == 1
    assert far["words"] == ["breaks", "uses"] and far["marks"] == [MARKS["breaks"], MARKS["uses"]]
    assert far["usable"] == ["128", "≥ 1,024"]
    assert far["rope"] == ["0.000", f"{MARKS['uses']}−0.750[−0.760, −0.740]"]  # from its own training length there
    assert said["other"] == [[said["other"][0][0]], []] and said["other"][0][0].startswith("This table has no verdicts")
    assert sum("same targets" in option for option in first["options"]) == 2
    assert len(set(first["options"])) == len(first["options"]) == 4
    assert said["answer"] == answer(shown()[0]) and "rope is 65 % worse" in said["answer"]


@needs_browser
def test_the_heat_map_colours_losses_and_tells_them(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """const cell = (curve, length) => one(`.heat-map tr[data-curve=${curve}] td[data-length="${length}"]`);
        cell("rope", 512).dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
        const tip = texts("#tip p"), colour = (curve, length) => getComputedStyle(cell(curve, length)).backgroundColor;
        const loss = {lowest: colour("rope", 128), highest: colour("rope", 512), tip,
          failed: cell("learned", 256).textContent};
        press("heat-scale", "above");
        return {loss, above: {best: colour("alibi", 512), worst: colour("rope", 512)},
          legend: texts(".heat-legend span")};""",
    )
    assert said["loss"]["lowest"] == "rgb(68, 1, 84)" and said["loss"]["highest"] == "rgb(253, 231, 37)"
    assert said["loss"]["tip"][:3] == ["rope", "512 tokens of context before a target", f"{math.log(150):.3f}"]
    assert said["loss"]["failed"] == "×"
    assert said["above"] == {"best": "rgb(68, 1, 84)", "worst": "rgb(253, 231, 37)"}
    assert said["legend"][0] == "0.000" and said["legend"][2] == f"{math.log(150 / 50.2):.3f}"


@needs_browser
def test_runs_are_found_by_what_they_hold_and_show_where_they_differ(tmp_path):
    said = ask(
        usual(),
        tmp_path,
        """const shown = () => all(".run").filter((run) => !run.hidden).map((run) => run.dataset.run);
        const find = (words) => {
          one("#find").value = words;
          one("#find").dispatchEvent(new Event("input"));
          return shown();
        };
        const differs = texts(".differs", one(".run")), same = texts(".same", one(".run"));
        press("lines", "differing");
        one(".run").open = true;
        return {everything: shown(), rope: find("Rope seed "), second: find("rope seed 1"),
          torch: find("torch: 2").length, nothing: find("yarn"), said: one("#runs-found").textContent, differs, same,
          hidden: all(".run:first-child .same").every((line) => getComputedStyle(line).display === "none")};""",
    )
    assert len(said["everything"]) == said["torch"] == 6
    assert said["rope"] == ["rope-s0-00", "rope-s1-00"] and said["second"] == ["rope-s1-00"]
    assert said["nothing"] == [] and said["said"].startswith("0 of 6 runs")
    assert said["differs"] == ["_target_: posexp.schemes.alibi", "seed: 0", "seed: 0"]
    assert said["same"] == ["scheme:", "base: 1", "model:", "base: 1", "packages.torch: 2.9"] and said["hidden"]


EVIL = [
    "<img src=x onerror=alert(1)>",
    "</script><script>window.owned=1</script>",
    "</script x",
    "__proto__",
    'a"b&amp;<!--',
    "{{data}}",
]


@needs_browser
def test_hostile_names_are_only_text(tmp_path):
    def with_names(name: str) -> list[dict]:
        failing = row(name, 0, 256, None, status=name if ":" not in name else "failed", run=f"{name}-s0-00")
        return [row(name, 0, 128, 50.0), failing]

    evil_rows = [made for name in EVIL for made in with_names(name)]
    verdicts = [
        Verdict(Place(EVIL[0], 256, *TARGETS), EVIL[1], EVIL[0], estimate(0.1), None),
        Verdict(Place("__proto__", 256, *TARGETS), "toString", "", None, None),
        Verdict(Place(EVIL[4], 256, *TARGETS), "breaks", "cropped", estimate(0.1), None),
    ]
    text = page(
        EVIL[1],
        tables(evil_rows, {made["run"]: made["scheme"] for made in evil_rows}, PPL, verdicts),
        [RunCard(name, name, 0, f"{name}: {name}\n", {name: {name: [name]}, "nan": math.nan}) for name in EVIL],
        {"command": EVIL[0], EVIL[1]: EVIL[1]},
    )
    said = ask(
        text,
        tmp_path,
        """scheme("<img src=x onerror=alert(1)>").click(); scheme("<img src=x onerror=alert(1)>").click();
        pointAt(...vertices("__proto__")[0]);
        const tip = texts("#tip p");
        one("button.verdict").focus();
        return {names: texts("#schemes button").sort(), images: all("img").length, scripts: all("script").length,
          owned: window.owned || 0, title: one("h1").textContent, tip: tip.concat(texts("#tip p")),
          runs: texts(".run .folder"), rows: texts("#numbers-table tbody th"),
          marks: texts("#numbers-table .failed"), made: texts("#made dd"), hash: location.hash,
          answer: one("#answer").textContent};""",
    )
    assert said["names"] == said["rows"] == sorted(EVIL) and said["runs"] == EVIL
    assert (said["images"], said["owned"]) == (0, 0) and said["scripts"] == 4  # the page's two, and the test's two
    assert said["title"] == EVIL[1] and EVIL[0] in said["tip"] and EVIL[1] in said["marks"]
    assert said["made"] == [EVIL[0], EVIL[1]]
    assert f"{EVIL[4]} is 11 % worse" in said["answer"] and "__proto__ has no value (toString)" in said["answer"]


@needs_browser
def test_numbers_are_written_as_in_table_md(tmp_path):
    values = [10 ** (e / 7) * 1.2346 for e in range(-14, 60)] + [9999.4, 9999.5, 99999.0, 1.0, 10.0, 9.99951]
    nats = [0.0, -0.0001, 0.01, -0.3, 0.6929, 0.6935, 3.0, 6.0, 6.9, 12.0, 800.0]
    question = f"return [{json.dumps(values)}.map(number), {json.dumps(nats)}.map(percentOf)];"
    said = ask(usual(), tmp_path, question)
    assert said == [[number(value) for value in values], [in_percent(value) for value in nats]]


@needs_browser
def test_a_phone_shows_the_page_without_scrolling_sideways(tmp_path):
    said = ask(
        usual(), tmp_path, "return [document.documentElement.scrollWidth, innerWidth, paths().length];", width=500
    )
    assert said[0] <= said[1] <= 500 and said[2] == 3


@needs_browser
def test_a_group_of_one_failed_run_still_makes_a_page(tmp_path):
    made = [row("rope", 0, 256, None, status="non-finite")]
    text = page("one", tables(made, {}), [], {})
    question = """press("scale", "1");
        return [paths(), all(".cross").length, one("#heat").hidden, one("#verdicts-table").textContent];"""
    said = ask(text, tmp_path, question)
    assert said[:3] == [[], 1, True] and said[3].startswith("This table has no verdicts")


def test_the_page_fetches_nothing_and_lets_only_its_own_scripts_run():
    text = usual()
    assert re.findall(r"https?:|//[a-z]|url\((?!#)|@import|\b(?:fetch|XMLHttpRequest|WebSocket|import)\(", text) == []
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy[1]
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_the_same_results_make_the_same_page_and_thirty_runs_a_small_one():
    assert usual() == usual()
    many = [row(f"scheme{i:02}", 0, 2**e, 50.0 + e / 3) for i in range(30) for e in range(25)]
    config = "".join(f"key{i}: value of the key {i}\n" for i in range(80))
    runs = [RunCard(f"scheme{i:02}-s0", f"scheme{i:02}", 0, config, {"packages": {"torch": "2.9"}}) for i in range(30)]
    assert len(page("many", tables(many, {}), runs, MADE).encode()) < 400_000
