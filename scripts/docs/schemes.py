"""docs/schemes/: a page for each positional scheme, and the lists of schemes, windows and transforms."""

import ast
import json
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from posexp.cli.schemes import about, details
from posexp.cli.usage import type_name
from posexp.config.components import class_of, parameters_of, read_options
from posexp.config.sections import config_dir
from posexp.errors import Misuse
from posexp.evaluation.contrasts import LEAST_SEEDS
from posexp.report.bench_records import Record, read_records
from scripts.docs.common import (
    DOCS,
    MARK,
    ROOT,
    code,
    fill_script,
    paragraph,
    plain,
    sentence,
    sourced,
    table,
)
from scripts.docs.studies import listed

FAMILIES = {
    "added": "Added to the embeddings",
    "rotary": "Rotating queries and keys",
    "bias": "A bias by distance",
    "content": "Computed from content",
    "wrapper": "Around another scheme",
    "none": "No positions",
}
PICTURES = {"bias": "bias", "rotary": "frequencies"}  # of the other families: attention
CAPTIONS = {
    "bias": "The bias of every head by distance",
    "frequencies": "The wavelength of every rotated pair of channels",
    "attention": "Mean distance and entropy of attention by position, on held-out text",
}
LATER = "results/bench/content-schemes.md"  # measurements after those of the study of all schemes
SYMBOLS = {
    r"z\(m, n\)": "z(m, n) is the logit of the query q_m at position m and the key k_n at position n",
    r"\bd\b": "d = m - n is their distance",
    r"\bC\b": "C is the width of a head",
    r"\bD\b": "D is the width of the model",
    r"\bh\b": "h is one of H heads",
    r"x_p": "x_p is the embedding of the token at position p",
    r"x_t": "x_t is the input of the block at token t",
    r"p_t": "p_t is the position of token t",
}


def files(kind: str) -> list[Path]:
    return sorted((config_dir() / kind).glob("*.yaml"))


def look(path: Path) -> tuple[str, int]:
    """Return the family of a scheme and its place there, from the second line of its YAML."""
    found = re.search(r"^# look: (\w+) (\d+)$", path.read_text(), re.M)
    assert found, f"{path.name} has no line `# look: <family> <place>`"
    return found[1], int(found[2])


def picture_of(path: Path) -> str:
    return PICTURES.get(look(path)[0], "attention")


def described(path: Path) -> tuple[str, str]:
    """Return what a component is, and its source with a link ("" without one)."""
    what, _, source = about(path).partition(" · ")
    return what, sourced(source.replace(" · ", ", "))


def module_of(path: Path) -> Path:
    return ROOT.joinpath(*read_options(path)["_target_"].split(".")[:-1]).with_suffix(".py")


def formula(path: Path) -> str:
    """Return the lines that begin with "Formula: " in the docstring of the scheme's module."""
    doc = ast.get_docstring(ast.parse(module_of(path).read_text())) or ""
    found = re.search(r"^Formula: (.*(?:\n    .*)*)", doc, re.M)
    if not found:
        raise Misuse(f"{module_of(path).relative_to(ROOT)} has no line `Formula: …` in its docstring")
    return re.sub(r"^ +", "", found[1], flags=re.M)


def inner_of(kind: str, path: Path) -> dict[str, str]:
    """Return the components of the same kind inside a component, by option: {"inner": "rope"}."""
    return dict(re.findall(rf"^  - /{kind}@(\w+): (\w+)$", path.read_text(), re.M))


def label_of(path: Path) -> str:
    """Return the label of a scheme's runs, which for one around another has the other's name too: pose-rope."""
    return "-".join((path.stem, *inner_of("scheme", path).values()))


def options(kind: str, path: Path) -> list[list[str]]:
    """Return option, type, default and meaning of every option of a component; an inner component is a choice."""
    node = read_options(path)
    kinds = {option.name: option.annotation for option in parameters_of(class_of(kind, object, node))}
    comments = dict(re.findall(r"^(\w+):.*?  # (.*)$", path.read_text(), re.M))
    inner = inner_of(kind, path)
    rows = [
        [f"{kind}.{key}", type_name(kinds[key]), yaml_of(value), comments.get(key, "")]
        for key, value in node.items()
        if key != "_target_" and key not in inner
    ]
    return rows + [
        [f"{kind}@{kind}.{key}", f"name of a {kind}", name, f"the {key} {kind}, whose options are {kind}.{key}.…"]
        for key, name in inner.items()
    ]


def yaml_of(value: Any) -> str:
    """Return a value as it is typed: null, true, 10000."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


def results(name: str) -> str:
    """Return the table of the studies that measured a scheme as trained, to 16 times its training length."""
    script, rows = fill_script(), []
    for study in listed():
        mine = [row for row in script.rows_of(study) if script.curve_of(row) == name and not row.control]
        lengths = {row.train_length for row in mine if row.protocol == script.PROTOCOL}
        if len(lengths) != 1:
            continue
        (start,) = lengths
        numbers, far = script.Numbers(study), 16 * start
        of_far = [row for row in mine if (row.protocol, row.length) == (script.PROTOCOL, far)]
        if not of_far:
            continue
        seeds, undefined = {row.seed for row in of_far}, all(row.outcome == "undefined" for row in of_far)
        verdict = ""
        if len(seeds) >= LEAST_SEEDS and not undefined:
            with suppress(Misuse):  # the study has published no verdict
                verdict = numbers.verdict(name, far)
        rows.append(
            [
                f"[{study}](../../results/studies/{study}/README.md)",
                f"{start:,}",
                str(len(seeds)),
                numbers.ppl(name, start),
                "undefined" if undefined else numbers.ppl(name, far),
                "" if undefined else numbers.change(name, far),
                verdict,
            ]
        )
    if not rows:
        return "No published study has measured it on the same targets to 16 times its training length.\n"
    header = ["study", "trained at", "seeds", "perplexity there", "at 16 times", "change, %", "verdict at 16 times, %"]
    words = """Perplexity on the same targets (`same_targets`), mean of seeds. The studies differ in size, text and
    budget, so their rows cannot be compared with each other. A verdict stands where the study published one, in the
    words of that time (*breaks* is now *degrades* or *collapses*), with its 95 % interval;
    [protocols.md](../protocols.md#verdicts) defines today's words."""
    return f"{table(header, rows, numbers=True)}\n{paragraph(words)}"


def cost(name: str) -> str:
    """Return the table of a scheme's measured costs, as multiples of those without positions."""
    rows = [row for row in (cost_of_study(name), *(cost_of_bench(name, folder) for folder in benches())) if row]
    if not rows:
        return "Not measured.\n"
    header = ["measurement", "training speed", "memory", "evaluation at", "speed", "memory"]
    words = "Multiples of a model without positions (`none`) in the same measurement: 0.9 is a tenth slower."
    if f"| {name} |" in (ROOT / LATER).read_text():
        words += f" [{Path(LATER).name}](../../{LATER}) has later figures, relative to ALiBi."
    return f"{table(header, rows, numbers=True)}\n{paragraph(words)}"


def cost_of_study(name: str) -> list[str] | None:
    page = "results/studies/schemes/cost.md"
    lines = [
        [cell.strip() for cell in line.strip("|\n ").split("|")] for line in (ROOT / page).read_text().splitlines()
    ]
    cells = {line[0]: line for line in lines if len(line) == 7}
    if name not in cells:
        return None
    own, base = cells[name], cells["none"]

    def ratio(column: int) -> str:
        return f"{float(own[column]) / float(base[column]):.2f}" if own[column] != "–" else "–"

    return [f"[schemes](../../{page})", own[2], ratio(4), "2,048", own[3], ratio(5)]


@cache
def benches() -> dict[str, list[Record]]:
    """Return the records of each folder of results/bench, the latest folder first."""
    folders = sorted((ROOT / "results" / "bench").glob("*/"), reverse=True)
    return {folder.name: read_records(folder) for folder in folders}


def cost_of_bench(name: str, folder: str) -> list[str] | None:
    """Return the ratios of a bench: training, and evaluation at the longest length that has a value."""
    at = {
        (record["contender"], row["what"], row["length"]): row
        for record in benches()[folder]
        for row in record["measurements"]
        if record["kind"] == "posexp" and row["ratio_to_none"] and row["status"] == "ok"
    }
    trained = [key for key in at if key[:2] == (name, "training")]
    evaluated = sorted(key for key in at if key[:2] == (name, "evaluation"))

    def ratios(keys: list[tuple[str, str, int]]) -> list[str]:
        if not keys:
            return ["–", "–"]
        own = at[keys[-1]]
        return ["–" if own[key] is None else f"{own[key]:.2f}" for key in ("ratio_to_none", "memory_to_none")]

    if not trained and not evaluated:
        return None
    length = f"{evaluated[-1][2]:,}" if evaluated else "–"
    return [f"[{folder}](../../results/bench/{folder}/README.md)", *ratios(trained), length, *ratios(evaluated)]


def page(path: Path) -> str:
    name, (what, source), shown = path.stem, described(path), details("scheme", path)
    module, lines, drawn = module_of(path).relative_to(ROOT), formula(path), picture_of(path)
    symbols = "; ".join(text for symbol, text in SYMBOLS.items() if re.search(symbol, lines))
    facts = [f"Paper: {source}." if source else "", f"Code: [`{module}`](../../{module})."]
    promises = shown["promises"] or "none of its own"
    rows = [
        [code(key), plain(kind), code(default), plain(text)] for key, kind, default, text in options("scheme", path)
    ]
    hooks = ", ".join(f"`{hook}`" for hook in shown["hooks"].split(", ")) if shown["hooks"] else "none: it does nothing"
    caption = f"""{CAPTIONS[drawn]}, drawn by `posexp inspect`: a model of 2 blocks, 64 wide, after 300,000 tokens of
    Python's library at 64 tokens."""
    parts = [
        f"# {name}\n",
        MARK,
        paragraph(f"{sentence(what)} {' '.join(fact for fact in facts if fact)}"),
        f"    posexp train +scheme={name}\n",
        f"## Formula\n\n```text\n{lines}\n```\n",
        paragraph(f"Here {symbols}.") if symbols else "",
        "## Hooks and promises\n",
        f"- Hooks: {hooks}.\n- Promises: {promises}.\n",
        paragraph(
            f"""A hook is a method that the scheme overrides
            ([`posexp/schemes/__init__.py`](../../posexp/schemes/__init__.py)). `posexp check {name}` measures its
            promises."""
        ),
        "## Options\n",
        table(["option", "type", "default", "meaning"], rows) if rows else "It has no options.\n",
        "## Picture\n",
        f"![{CAPTIONS[drawn]}](../pictures/schemes/{name}.png)\n",
        paragraph(caption),
        f"## Results\n\n{results(label_of(path))}",
        f"## Cost\n\n{cost(name)}",
    ]
    return "\n".join(part for part in parts if part)


def index() -> str:
    parts = ["# Schemes\n", MARK]
    parts.append(
        paragraph(
            """A scheme encodes the positions of tokens, from the first step of training on. A window limits the earlier
            tokens that a token attends to. A temperature sharpens attention as the input grows. A transform changes a
            trained model at evaluation. All four combine freely;
            `posexp schemes <name>` prints the same in a terminal."""
        )
    )
    for key, title in FAMILIES.items():
        rows = [
            [f"[{path.stem}]({path.stem}.md)", *map(escaped, described(path))]
            for path in sorted(files("scheme"), key=look)
            if look(path)[0] == key
        ]
        parts += [f"## {title}\n", table(["scheme", "what", "paper"], rows)]
    for kind, title, how in (
        ("window", "Windows", "In training and at evaluation: `window=<name>`, with options `window.<option>=…`."),
        ("temperature", "Temperatures", "From training on: `temperature=<name>`, with `temperature.<option>=…`."),
        ("mixer", "Mixers", "Layers in attention's place: `mixer=<name>`, with options `mixer.<option>=…`."),
        (
            "transform",
            "Transforms",
            "At evaluation: `posexp eval +transform=<name>`, with `transform.<name>.<option>=…`.",
        ),
    ):
        rows = []
        for path in files(kind):
            chosen = options(kind, path)
            texts = [
                code(f"{key.rpartition('.')[2]}={default}") + (f": {plain(text)}" if text else "")
                for key, _, default, text in chosen
            ]
            rows.append([code(path.stem), *map(escaped, described(path)), "<br>".join(texts)])
        parts += [f"## {title}\n", f"{how}\n", table([kind, "what", "paper", "options"], rows)]
    return "\n".join(parts)


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def pages() -> dict[Path, str]:
    folder = DOCS / "schemes"
    return {folder / "index.md": index()} | {folder / f"{path.stem}.md": page(path) for path in files("scheme")}
