"""The report as one HTML file that opens offline: its data as JSON, its style and scripts inline.

Names, configurations and statuses come from run folders, which may be somebody else's: they are only ever text in the
page, and its policy lets nothing run but the scripts of posexp/report/web, nor anything be fetched.
"""

import base64
import hashlib
import html
import json
import math
import re
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from posexp.evaluation.plan import PROTOCOLS
from posexp.evaluation.verdicts import Usable, Verdict
from posexp.report.rows import Cell, Table, apart, facts
from posexp.report.style import COLOURS, DASHES, MARKERS, looks
from posexp.report.table import trained_at
from posexp.runs import flat

SCRIPTS = ("elements.js", "chart.js", "tables.js", "runs.js", "page.js")  # in this order
HEATS = ("per_position", "repeats")  # by context, too many lengths to read as curves alone


@dataclass(frozen=True)
class RunCard:
    """What the page tells of one run: its curve, its configuration as YAML, its provenance."""

    name: str
    curve: str
    seed: int
    config: str
    provenance: dict[str, Any]


def page(
    title: str,
    shown: list[Table],
    verdicts: list[Verdict],
    usable: list[Usable],
    runs: list[RunCard],
    made: dict[str, Any],
) -> str:
    """The whole page. `made` says how it came about (version, commit, command, date); the same input gives the same
    page."""
    style, script = source("page.css"), "\n".join(source(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{hash_of(script)}'; style-src '{hash_of(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": html.escape(title.encode("utf-8", "replace").decode()),
        "policy": policy,
        "style": style,
        "script": script,
        "data": as_json(content(title, shown, verdicts, usable, runs, made)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], source("page.html"))


def source(name: str) -> str:
    return (files("posexp.report") / "web" / name).read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """As a Content-Security-Policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_json(value: Any) -> str:
    """JSON that may stand inside <script>: ASCII, without <, > and &, and null for what JSON has no number for."""
    text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def content(
    title: str,
    shown: list[Table],
    verdicts: list[Verdict],
    usable: list[Usable],
    runs: list[RunCard],
    made: dict[str, Any],
) -> dict[str, Any]:
    """What the scripts read."""
    judged = next((i for i, table in enumerate(shown) if table.protocol == "same_targets"), None)
    return {
        "title": title,
        "made": {key: str(value) for key, value in made.items() if value not in (None, "")},
        "looks": looks_of(shown, [one.curve for one in (*verdicts, *usable, *runs)]),
        "tables": [table_of(table, i == judged) for i, table in enumerate(shown)],
        "apart": apart(shown),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "usable": [asdict(one) for one in usable],
        "runs": [
            {
                "name": run.name,
                "curve": run.curve,
                "seed": run.seed,
                "config": run.config,
                "provenance": {key: text_of(value) for key, value in flat(run.provenance).items()},
            }
            for run in runs
        ],
    }


def looks_of(shown: list[Table], others: list[str]) -> dict[str, dict[str, Any]]:
    """Of every curve that is named anywhere: the picture's look, and a plain one for the `others` it lacks."""
    known = looks(shown)
    found = {}
    for curve in sorted({*known, *others}):
        look = known.get(curve)
        colour, marker, dash = (look.colour, look.marker, look.dash) if look else (COLOURS[-1], MARKERS[0], DASHES[0])
        found[curve] = {"colour": colour, "marker": marker, "dash": [] if dash == "-" else dash[1]}
    return found


def table_of(table: Table, judged: bool) -> dict[str, Any]:
    """`judged`: the verdicts are of this table."""
    protocol = PROTOCOLS.get(table.protocol)
    corpus = getattr(table, "corpus", "")
    name = protocol.title if protocol else table.protocol
    return {
        "key": "~".join([table.protocol, str(table.stride or ""), (table.targets_hashes or ("",))[0][:8], corpus]),
        "protocol": table.protocol,
        "name": (name[:1].upper() + name[1:]) + (f" · {corpus}" if corpus else ""),
        "axis": protocol.axis if protocol else "length",
        "facts": f"{facts(table)} · {trained_at(table)}",
        "lengths": table.lengths,
        "curves": table.curves,
        "trained": table.trained,
        "trainLengths": table.train_lengths,
        "cells": [[cell_of(table.cells.get((curve, length))) for length in table.lengths] for curve in table.curves],
        "comparable": len(table.targets_hashes) <= 1 and len(table.targets) <= 1,
        "judged": judged,
        "heat": table.protocol in HEATS,
        "notes": table.notes,
    }


def cell_of(cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    found = {
        "nll": cell.nll,
        "low": cell.low,
        "high": cell.high,
        "bits": getattr(cell, "bits_per_byte", None),
        "accuracy": getattr(cell, "accuracy", None),
        "exact": getattr(cell, "exact_match", None),
        "spread": cell.spread or None,
        "failure": cell.failure or None,
    }
    return {"seeds": cell.seeds} | {key: value for key, value in found.items() if value is not None}


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
