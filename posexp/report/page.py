"""The report as one HTML file that works offline, with its data as JSON and its style and scripts inline.

Names, configurations and statuses come from run folders, which may be untrusted, and are inserted only as text. The
page's Content-Security-Policy allows only the scripts of posexp/report/web and no requests.
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

from posexp.config.values import flat
from posexp.evaluation.plan import PROTOCOLS
from posexp.evaluation.verdicts import MARGIN
from posexp.output.style import looks_of
from posexp.report.answer import answer
from posexp.report.cell import Cell
from posexp.report.table import trained_at
from posexp.report.tables import Table, facts
from posexp.report.verdict_table import MARKS

SCRIPTS = ("elements.js", "chart.js", "tables.js", "runs.js", "page.js")  # in this order


@dataclass(frozen=True)
class RunCard:
    """The data of one run on the page: its curve, configuration as YAML, and provenance."""

    name: str
    curve: str
    seed: int
    config: str
    provenance: dict[str, Any]


def page(
    title: str,
    shown: list[Table],
    runs: list[RunCard],
    made: dict[str, Any],
) -> str:
    """Return the page. Equal input gives equal text. `made` is the page's provenance: version, commit, command."""
    style, script = source("page.css"), "\n".join(source(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{hash_of(script)}'; style-src '{hash_of(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": html.escape(title.encode("utf-8", "replace").decode()),
        "policy": policy,
        "margin": f"{100 * math.expm1(MARGIN):.1g} %",
        "style": style,
        "script": script,
        "data": as_json(page_content(title, shown, runs, made)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], source("page.html"))


def source(name: str) -> str:
    return (files("posexp.report") / "web" / name).read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """Return the hash of an inline script or style for a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_json(value: Any) -> str:
    """Return JSON that is safe inside <script>: ASCII without <, > and &, and null for non-finite numbers."""
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


def page_content(
    title: str,
    shown: list[Table],
    runs: list[RunCard],
    made: dict[str, Any],
) -> dict[str, Any]:
    """Return the data that the scripts read."""
    return {
        "title": title,
        "made": {key: str(value) for key, value in made.items() if value not in (None, "")},
        "answer": answer(shown[0]),
        "looks": drawn(shown, [run.curve for run in runs]),
        "tables": [table_of(table) for table in shown],
        "marks": MARKS,
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


def drawn(shown: list[Table], others: list[str]) -> dict[str, dict[str, Any]]:
    """Return colour, marker and dash of every curve, as in the pictures."""
    return {
        curve: {"colour": look.colour, "marker": look.marker, "dash": [] if look.dash == "-" else look.dash[1]}
        for curve, look in looks_of([*others, *(curve for table in shown for curve in table.curves)]).items()
    }


def table_of(table: Table) -> dict[str, Any]:
    protocol = PROTOCOLS.get(table.protocol)
    name = protocol.title if protocol else table.protocol.replace("_", " ")
    hash_ = (table.targets_hashes or ("",))[0][:8]
    return {
        "key": "~".join([table.protocol, str(table.stride or ""), hash_, table.corpus]),
        "protocol": table.protocol,
        "name": (name[:1].upper() + name[1:]) + (f" · {table.corpus}" if table.corpus else ""),
        "axis": protocol.axis if protocol else "length",
        "facts": f"{facts(table)} · {trained_at(table)}",
        "lengths": table.lengths,
        "curves": table.curves,
        "trained": table.trained,
        "trainedAt": trained_at(table),
        "trainLengths": table.train_lengths,
        "cells": [[cell_of(table.cells.get((curve, length))) for length in table.lengths] for curve in table.curves],
        "comparable": len(table.targets_hashes) <= 1 and len(table.targets) <= 1,
        "verdicts": [asdict(verdict) | verdict.place._asdict() for verdict in table.verdicts],
        "usable": [asdict(one) for one in table.usable],
        "heat": protocol is not None and protocol.drawn_only,
        "measure": table.measure.name,
        "notes": table.notes,
    }


def cell_of(cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    found = {
        "nll": cell.nll,
        "low": cell.low,
        "high": cell.high,
        "bits_per_byte": cell.bits_per_byte,
        "accuracy": cell.accuracy,
        "exact_match": cell.exact_match,
        "exact_match_bounds": cell.exact_match_bounds,
        "spread": cell.spread or None,
        "failure": cell.failure or None,
    }
    return {"seeds": cell.seeds} | {key: value for key, value in found.items() if value is not None}


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
