"""The page of posexp report: its figures, its tables, what a browser makes of it, and that it trusts no name."""

import base64
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from posexp.evaluation.rows import COLUMNS, Row
from posexp.evaluation.statistics import Estimate, Ratio
from posexp.evaluation.verdicts import Place, Verdict
from posexp.report.answer import answer
from posexp.report.figures import HEIGHT
from posexp.report.metric import CHANGE, PPL
from posexp.report.page import RunCard, page
from posexp.report.tables import Table, tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

MADE = {"posexp": "1.2.3", "commit": "abc123", "command": "posexp report group=books --html", "date": "2026-01-02"}
LENGTHS = (64, 128, 256, 512)
TARGETS = ("ab12cd34ef56", None)  # hash and stride
FAR = ("fa12cd34ef56", None)  # those of longer lengths, on which alibi and rope were measured again
PPLS = {"alibi": (55.0, 50.0, 50.1, 50.2), "rope": (54.0, 48.0, 70.0, 150.0), "learned": (60.0, 51.0, None, None)}
ROWS = "run,length\nrope-s0-00,128\n"


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


ORACLE: dict[str, Any] = {"gain": estimate(0.1), "captured": Ratio(0.2, -0.1, 0.5)}
VERDICTS = [
    Verdict(Place("alibi", 256, *TARGETS), "ignores", cropped=estimate(0.0), **ORACLE),
    Verdict(Place("alibi", 512, *TARGETS), "unclear", cropped=estimate(0.012)),
    Verdict(Place("alibi", 1024, *FAR), "degrades", cropped=estimate(0.75)),
    Verdict(Place("rope", 256, *TARGETS), "collapses", cropped=estimate(0.5), shuffled=estimate(-0.25)),
    Verdict(Place("rope", 512, *TARGETS), "degrades", cropped=estimate(1.1)),
    Verdict(Place("rope", 1024, *FAR), "uses", cropped=estimate(-0.75)),
    Verdict(Place("learned", 256, *TARGETS), "undefined"),
]


def shown() -> list[Table]:
    made = rows()
    return tables(made, {r.run: r.scheme or "" for r in made}, PPL, VERDICTS)


def cards() -> list[RunCard]:
    text = "scheme:\n  _target_: posexp.schemes.{0}\n  base: 1\nmodel:\n  base: 1\nseed: {1}\n"
    return [
        RunCard(
            f"{curve}-s{seed}-00",
            curve,
            seed,
            text.format(curve, seed),
            {"packages": {"torch": "2.9"}, "seed": seed},
            tuple((1024 * step, 8.0 - step / 1000) for step in range(1, 1001)),
            ((512_000, 7.0), (1_024_000, 6.5)),
        )
        for curve in PPLS
        for seed in (0, 1)
    ]


def usual(**other: Any) -> str:
    given: dict[str, Any] = {"title": "books", "shown": shown(), "runs": cards(), "made": MADE, "rows": ROWS}
    return page(**given | other)


@pytest.fixture(scope="module")
def text() -> str:
    return usual()


def data_of(text: str) -> dict[str, Any]:
    """What the script of the page reads."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def figure_of(text: str, table: int = 0, metric: str = PPL.axis) -> dict[str, Any]:
    (found,) = [v["figure"] for v in data_of(text)["views"] if (v["table"], v["metric"]) == (str(table), metric)]
    return found


def traces_of(figure: dict[str, Any], kind: str = "line") -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in figure["data"] if re.fullmatch(kind + r"\d+(-\d+)?", trace["uid"])}


class Body(HTMLParser):
    """The tags and the words of a page, without those of scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data.replace("\xa0", " ").strip())


def test_plotly_accepts_every_figure(text: str) -> None:
    from plotly.graph_objects import Figure

    data = data_of(text)
    for figure in [data["training"], *(view["figure"] for view in data["views"])]:
        Figure(figure)
    Figure(layout=data["defaults"])
    with pytest.raises(ValueError, match="symbol"):
        Figure([{"type": "scatter", "marker": {"symbol": "none"}}])


def test_every_table_has_its_metrics_the_change_against_the_own_training_length_first(text: str) -> None:
    metrics: dict[str, list[str]] = {}
    for view in data_of(text)["views"]:
        metrics.setdefault(view["table"], []).append(view["metric"].split()[0])
    assert metrics == {
        "0": ["change", "perplexity", "loss", "bits"],
        "1": ["change", "perplexity", "loss", "bits"],
        "2": ["perplexity", "loss", "bits"],
        "3": ["exact", "perplexity", "loss", "bits"],
    }


def test_every_curve_with_a_value_is_drawn_and_every_failure_marked_above(text: str) -> None:
    figure = figure_of(text)
    lines, layout = traces_of(figure), figure["layout"]
    assert list(lines) == ["learned", "rope", "alibi"]  # as they end, the lowest last
    assert lines["rope"]["x"] == list(LENGTHS)
    assert lines["rope"]["y"] == pytest.approx([ppl * math.sqrt(1.02) for ppl in PPLS["rope"] if ppl])
    assert lines["learned"]["y"][2:] == [None, None]
    assert lines["alibi"]["marker"]["color"] == [lines["alibi"]["line"]["color"]] * 3 + ["white"]  # hollow: unclear
    assert "white" not in lines["rope"]["marker"]["color"]
    (cross,) = traces_of(figure, "cross").values()
    assert (cross["name"], cross["x"], cross["yaxis"], cross["showlegend"]) == ("learned", [256, 512], "y2", False)
    assert all("undefined" in words for words in cross["hovertext"])
    assert layout["yaxis"]["domain"][1] < layout["yaxis2"]["domain"][0] and layout["height"] > HEIGHT
    assert layout["shapes"][0]["x0"] == 128 and layout["shapes"][0]["label"]["text"] == "trained at 128"
    bands = traces_of(figure, "band")
    assert bands["alibi"]["y"][:4] == pytest.approx([55, 50, 50.1, 50.2]), "the lowest seed, then the highest"
    assert bands["alibi"]["y"][4:] == pytest.approx([1.02 * ppl for ppl in (50.2, 50.1, 50, 55)])
    assert lines["rope"]["legendgroup"] == bands["rope"]["legendgroup"] != lines["alibi"]["legendgroup"]


def test_relative_to_the_own_training_length_a_curve_is_0_there(text: str) -> None:
    figure = figure_of(text, metric=CHANGE.axis)
    lines, axis = traces_of(figure), figure["layout"]["yaxis"]
    assert lines["rope"]["y"][1] == lines["alibi"]["y"][1] == 0
    assert lines["rope"]["y"][3] == pytest.approx(1 + math.log10(100 * (150 / 48 - 1)))
    ticks = dict(zip(axis["ticktext"], axis["tickvals"], strict=True))
    assert ticks["0"] == 0 and ticks["+100"] == pytest.approx(3) and ticks["−1"] == -1
    assert "<br>change from the training length in percent: +212 ▲<br>" in lines["rope"]["hovertext"][3]


def test_pointing_at_a_curve_tells_what_is_known(text: str) -> None:
    words = traces_of(figure_of(text))["rope"]["hovertext"][2].split("<br>")
    assert words[:2] == ["<b>rope</b>", "256 tokens of context before a target"]
    assert words[2].startswith("perplexity: 70.70 ▲▲ [70.00, 71.40]")
    assert words[3:] == ["collapses +64.9 % [+63.2, +66.5]", "shuffled −22.1 % [−22.9, −21.3]", "p = 0.000"]


def test_a_row_per_curve_sums_it_up_beside_the_name_and_has_whole_numbers_to_sort_by(text: str) -> None:
    first = re.search(r"<table>.*?</table>", text, re.DOTALL)
    assert first
    heads = re.findall("<th><button>(.*?)</button>", first[0])
    summary = ["usable length", "verdict at 512", "captured gain at 256"]
    assert heads == ["curve", *summary, "64", "128*", "256", "512"]
    lines = re.findall(r"<tr>(.*?)</tr>", first[0], re.DOTALL)[1:]
    cells = [re.findall('<td(?: data-order="(.*?)")?>(.*?)</td>', line, re.DOTALL) for line in lines]
    assert [re.sub("<.*?>|&nbsp;", "", line[0][1])[1:] for line in cells] == ["alibi", "learned", "rope"]
    assert [line[1:4] for line in cells] == [
        [("256.0", "256–?"), ("6.0", "unclear"), ("0.2", "20 % [−10, 50]")],
        [("128.0", "128–256"), ("", "–"), ("", "–")],
        [("128.0", "128–256"), ("4.0", "degrades"), ("", "–")],
    ]
    assert cells[2][6][1].startswith("+45.8 ▲▲") and float(cells[2][7][0]) == pytest.approx(100 * (150 / 48 - 1))
    assert cells[1][7] == ("", '<small class="failure">undefined</small>')


def test_the_answer_stands_above_and_verdicts_belong_to_their_table(text: str) -> None:
    said = re.search('<p id="answer">(.*?)</p>', text)
    assert said and html.unescape(said[1]) == answer(shown()[0]) and "rope is 200 % worse" in said[1]
    sections = dict(re.findall(r'<section data-table="(\d)"(?: hidden)?>(.*?)</section>', text, re.DOTALL))
    assert set(sections) == {"0", "1"}
    words = "(uses|ignores|unclear|degrades|collapses|undefined) "
    assert re.findall(words, re.sub("<.*?>", " ", sections["0"])) == [
        *("ignores", "unclear", "undefined", "collapses", "degrades")
    ]
    assert re.findall("(uses|degrades) [+−]", sections["1"]) == ["degrades", "uses"]
    assert "+64.9 % [+63.2, +66.5]<small>shuffled −22.1 %" in sections["0"]
    assert "<small>oracle −9.5 % [−10.4, −8.6]</small><small>captured 20 % [−10, 50]</small>" in sections["0"]


def test_losses_of_training_are_thinned_by_means_and_those_on_validation_text_are_points(text: str) -> None:
    traces = data_of(text)["training"]["data"]
    lines = [trace for trace in traces if trace["uid"].startswith("loss")]
    assert len(lines) == 6 and sum(trace["showlegend"] for trace in lines) == 3, "a name per curve"
    first = lines[0]
    assert len(first["x"]) == 250 and first["x"][0] == 4096 and first["x"][-1] == 1024 * 1000
    assert first["y"][0] == pytest.approx(8 - 0.0025)
    points = [trace for trace in traces if trace["uid"].startswith("valid")]
    assert [(trace["x"], trace["y"]) for trace in points] == [([512_000, 1_024_000], [7.0, 6.5])] * 6
    assert 'id="training"' in text and 'id="training"' not in usual(runs=[])


def test_runs_show_their_configuration_and_provenance_and_where_they_differ(text: str) -> None:
    (run, *_) = re.findall("<details>(.*?)</details>", text, re.DOTALL)
    assert "alibi-s0-00" in run and "seed 0" in run
    lines = [(line, bool(same)) for same, line in re.findall('<span( class="same")?>(.*?)\n</span>', run)]
    assert [line for line, same in lines if not same] == [*("  _target_: posexp.schemes.alibi", "seed: 0", "seed: 0")]
    assert ("packages.torch: 2.9", True) in lines and ("model:", True) in lines
    assert "posexp report group=books --html" in text and data_of(text)["rows"] == ROWS


EVIL = [
    "<img src=x onerror=alert(1)>",
    "</script><script>window.owned=1</script>",
    "</script x",
    "__proto__",
    'a"b&amp;<!--',
    "{{data}}{% raw %}",
    '<b>bold</b> <a href="javascript:window.owned=1">$x^2$ %{x}</a>',
]


def hostile() -> str:
    def with_names(name: str) -> list[Row]:
        failing = row(name, 0, 256, None, status=name if ":" not in name else "failed", run=f"{name}-s0-00")
        return [row(name, 0, 128, 50.0), failing]

    evil_rows = [made for name in EVIL for made in with_names(name)]
    verdicts = [
        Verdict(Place(EVIL[0], 256, *TARGETS), EVIL[1], cropped=estimate(0.1)),
        Verdict(Place("__proto__", 256, *TARGETS), "toString"),
        Verdict(Place(EVIL[4], 256, *TARGETS), "degrades", cropped=estimate(0.1)),
    ]
    losses = ((10, 5.0), (20, 4.0))
    return page(
        EVIL[1],
        tables(evil_rows, {made.run: made.scheme or "" for made in evil_rows}, PPL, verdicts),
        [RunCard(n, n, 0, f"{n}: {n}\n", {n: {n: [n]}, "nan": math.nan}, losses, losses) for n in EVIL],
        {"command": EVIL[0], EVIL[1]: EVIL[1]},
        "\n".join(EVIL),
    )


def test_hostile_names_are_only_text() -> None:
    text = hostile()
    plain = {tag for tag, _ in Body(usual()).tags}
    body = Body(text)
    assert {tag for tag, _ in body.tags} <= plain, "no tag but those of any page"
    assert sum(tag == "script" for tag, _ in body.tags) == 3
    assert not any(name.startswith("on") or name == "href" for _, attributes in body.tags for name in attributes)
    said = " ".join(body.words)
    assert all(said.count(name) > 5 for name in EVIL)
    data = data_of(text)
    assert data["rows"] == "\n".join(EVIL)
    for figure in [data["training"], *(view["figure"] for view in data["views"])]:
        for trace in figure["data"]:
            words = [trace["name"], trace.get("text", ""), *trace.get("hovertext", [])]
            assert set(re.findall("<.*?>", " ".join(words))) <= {"<b>", "</b>", "<br>"}


def test_the_policy_allows_no_request_and_only_the_pages_own_scripts(text: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in html.unescape(policy[1]).split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data: blob:" and "connect-src" not in rules
    inline = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert inline[0] == get_plotlyjs() and len(inline) == 2
    hashes = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in inline]
    assert rules["script-src"] == " ".join(f"'sha256-{one}'" for one in hashes)
    assert re.findall(r"https?:|url\((?!#)|@import|src=", text.replace(get_plotlyjs(), "")) == []


def test_the_same_results_make_the_same_page_and_thirty_runs_a_small_one(text: str) -> None:
    assert usual() == text
    many = [row(f"scheme{i:02}", 0, 2**e, 50.0 + e / 3) for i in range(30) for e in range(25)]
    config = "".join(f"key{i}: value of the key {i}\n" for i in range(80))
    runs = [RunCard(f"scheme{i:02}-s0", f"scheme{i:02}", 0, config, {"packages": {"torch": "2.9"}}) for i in range(30)]
    assert len(page("many", tables(many, {}), runs, MADE).replace(get_plotlyjs(), "").encode()) < 1_400_000


def test_a_group_of_one_failed_run_still_makes_a_page() -> None:
    text = page("one", tables([row("rope", 0, 256, None, status="non-finite")], {}), [], {})
    (view,) = data_of(text)["views"]
    assert [trace["uid"] for trace in view["figure"]["data"]] == ["line0", "cross0"] and "non-finite" in text


@pytest.mark.slow
def test_only_a_page_imports_plotly() -> None:
    code = "import sys, posexp.report.command; print({'plotly', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", done.stdout


# ---- in a browser

needs_browser = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium")]

# Runs before everything else on the page: errors, and whatever the policy stopped.
WATCH = """
const complaints = [];
console.error = (...words) => complaints.push(words.join(" "));
addEventListener("error", (event) => complaints.push(String(event.message || event.target)), true);
addEventListener("unhandledrejection", (event) => complaints.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => complaints.push(`policy: ${event.violatedDirective}`));
"""
ASK = """
const all = (query) => [...document.querySelectorAll(query)];
const texts = (query) => all(query).map((node) => node.textContent.replaceAll("\\u00a0", " ").trim());
const choose = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("change"));
};
"""


def ask(text: str, folder: Path, question: str, width: int = 1200, dark: bool = False) -> dict[str, Any]:
    """What `question`, the body of a function run on the page in a frame of that width, returns.

    The page must have had no complaint, and have requested nothing.
    """
    answer = (
        f"{ASK}\n(async () => {{ {question} }})().catch(String).then((answer) => {{\n"
        "const requests = performance.getEntriesByType('resource').map((entry) => entry.name);\n"
        "parent.postMessage(JSON.stringify({answer, complaints, requests}), '*');\n});"
    )
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in (WATCH, answer)
    )
    policy = "script-src &#39;"
    assert policy in text
    watched = text.replace(policy, f"script-src {hashes} &#39;", 1)
    watched = watched.replace("<title>", f"<script>{WATCH}</script><title>", 1)
    watched = watched.replace("</body>\n</html>", f"<script>{answer}</script></body></html>")
    (folder / "page.html").write_text(watched, encoding="utf-8")
    (folder / "frame.html").write_text(
        f"""<!doctype html><meta name="color-scheme" content="light dark"><pre id="answered"></pre>
        <script>addEventListener("message", (event) => document.getElementById("answered").textContent = event.data)
        </script><iframe src="page.html" width={width} height=900></iframe>"""
    )
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--hide-scrollbars"]
    command += ["--window-size=1300,1000", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="answered">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert said["complaints"] == said["requests"] == []
    found_answer: dict[str, Any] = said["answer"]
    return found_answer


class TestBrowser:
    pytestmark = needs_browser

    def test_selecting_sorting_hiding_finding_downloading_and_printing(self, text: str, tmp_path: Path) -> None:
        said = ask(
            text,
            tmp_path,
            """
            const drawn = () => [all("#chart .scatterlayer .trace").length, texts("#chart .ytitle")[0]];
            const views = () => all("[data-table]").filter((node) => !node.hidden).length;
            const first = [drawn(), views(), texts("#chart .legendtext"), texts("#training .legendtext")];
            const heads = () => all("[data-table]:not([hidden]) th button");
            const names = () => all("div[data-table]:not([hidden]) tbody tr td:first-child").map(
              (cell) => cell.textContent.replaceAll("\\u00a0", " ").slice(2));
            const sorted = [];
            heads()[7].click(); sorted.push(names()); heads()[7].click(); sorted.push(names());
            heads()[1].click(); sorted.push(names()); heads()[3].click(); sorted.push(names());
            heads()[0].click(); sorted.push(names());
            for (const kind of ["mousedown", "mouseup"]) {
              all("#chart .legendtoggle")[1].dispatchEvent(new MouseEvent(kind, {bubbles: true}));
            }
            await new Promise((done) => setTimeout(done, 1000)); // a second click would show rope alone
            choose("metric", "perplexity");
            const ppl = [drawn(), views()];
            const options = [...metric.options].map((option) => option.hidden);
            choose("table", "2");
            const position = [drawn(), views(), metric.value, [...metric.options].map((option) => option.hidden)];
            find.value = "ROPE seed 1"; find.dispatchEvent(new Event("input"));
            const runs = all("details").filter((run) => !run.hidden).map((run) => run.textContent);
            document.getElementById("differing").click();
            all("details")[0].open = true;
            const same = all("details .same").every((line) => getComputedStyle(line).display === "none");
            let saved = null;
            HTMLAnchorElement.prototype.click = function () { saved = [this.download, this.href.slice(0, 5)]; };
            document.getElementById("csv").click();
            const wide = document.querySelector("#chart .main-svg").clientWidth;
            dispatchEvent(new Event("beforeprint"));
            const printed = document.querySelector("#chart .main-svg").clientWidth;
            dispatchEvent(new Event("afterprint"));
            const usable = all("div[data-table] th")[1].getBoundingClientRect().right;
            return {first, sorted, ppl, options, position, runs, same, saved, usable,
              widths: [wide, printed, document.querySelector("#chart .main-svg").clientWidth]};""",
        )
        (drawn, views, legend, training), axis = said["first"], CHANGE.label
        assert drawn[1] == axis and views == 2 and legend == ["learned", "rope", "alibi"] and len(training) == 3
        up, down, by_usable, by_captured, by_name = said["sorted"]
        assert up == ["alibi", "rope", "learned"] and down == ["rope", "alibi", "learned"], "missing values last"
        assert by_usable[-1] == "alibi" == by_captured[0]
        assert by_name == ["alibi", "learned", "rope"]
        assert said["ppl"] == [[drawn[0] - 2, PPL.label], 2] and said["options"] == [False] * 4 + [True]
        assert said["position"][1:3] == [1, "perplexity"] and said["position"][3] == [True, *[False] * 3, True]
        assert len(said["runs"]) == 1 and "rope-s1-00" in said["runs"][0] and said["same"]
        assert said["saved"] == ["rows.csv", "blob:"]
        wide, printed, again = said["widths"]
        assert printed < 720 < wide == again and said["usable"] < 1200

    def test_hostile_names_stay_text_on_a_phone_in_the_dark(self, tmp_path: Path) -> None:
        said = ask(
            hostile(),
            tmp_path,
            """
            const style = (query, name) => getComputedStyle(document.querySelector(query))[name];
            choose("metric", "perplexity");
            return {names: texts("#chart .legendtext").concat(texts("#training .legendtext")), title: texts("h1")[0],
              images: all("img").length, links: all("section a[href]").filter((a) => a.href.baseVal ?? a.href).length,
              bold: all("#chart .legendtext [style*=bold]").length, owned: window.owned || 0,
              rows: texts("div[data-table]:not([hidden]) tbody td:first-child").map((name) => name.slice(2)),
              wide: [document.documentElement.scrollWidth, innerWidth],
              figure: document.querySelector("#chart .main-svg").clientWidth,
              ink: [style("#chart .xtitle", "fill"), style("body", "color"), style("body", "backgroundColor"),
                style("#chart .bg", "fill"), style("#chart .main-svg", "backgroundColor")]};""",
            width=420,
            dark=True,
        )
        short = [name if len(name) <= 32 else f"{name[:23]}…{name[-8:]}" for name in EVIL]
        assert sorted(said["names"]) == sorted(2 * short) and sorted(said["rows"]) == sorted(EVIL)
        assert said["title"] == EVIL[1] and said["images"] == said["owned"] == said["links"] == said["bold"] == 0
        assert said["wide"] == [420, 420] and said["figure"] < 420
        light, dark = "rgb(231, 230, 227)", "rgb(19, 21, 23)"
        assert said["ink"][:3] == [light, light, dark] and said["ink"][3] == "none"
        assert said["ink"][4] == "rgba(0, 0, 0, 0)"
