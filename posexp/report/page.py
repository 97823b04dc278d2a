"""The report as one HTML file that works offline, with plotly.js, style and script inside.

Names, configurations and statuses come from run folders, which may be untrusted. Jinja escapes them in HTML and JSON,
`figures.plain` in figures. The page's Content-Security-Policy allows no requests and no scripts but its own.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from posexp.config.values import flat
from posexp.output.style import looks_of
from posexp.report import figures, verdict_table
from posexp.report import table as text
from posexp.report.answer import answer
from posexp.report.metric import CHANGE, METRICS
from posexp.report.tables import Table, listed


@dataclass(frozen=True)
class RunCard:
    """The data of one run on the page: its curve, configuration as YAML, provenance and losses.

    `losses` are (tokens of training, nats per token), and `validation` the same on validation text.
    """

    name: str
    curve: str
    seed: int
    config: str
    provenance: dict[str, Any]
    losses: tuple[tuple[int, float], ...] = ()
    validation: tuple[tuple[int, float], ...] = ()

    @property
    def parts(self) -> dict[str, list[str]]:
        """The lines that the page shows, by their title."""
        about = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in flat(self.provenance).items()
        }
        return {
            "Configuration": self.config.splitlines(),
            "Provenance": [f"{key}: {value}" for key, value in about.items()],
        }


def page(title: str, shown: list[Table], runs: list[RunCard], made: dict[str, Any], rows: str = "") -> str:
    """Return the page, with its provenance `made` and the rows as CSV for download. Equal input gives equal text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=PackageLoader("posexp.report", "web"), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    curves = [*(run.curve for run in runs), *(curve for table in shown for curve in table.curves)]
    pens = figures.pens_of(looks_of(curves))
    views = [(str(number), table) for number, whole in enumerate(shown) for table in views_of(whole)]
    lines = [{line for part in run.parts.values() for line in part} for run in runs]
    data = {
        "views": [
            {"table": number, "metric": table.measure.axis, "figure": figures.curves_figure(table, pens)}
            for number, table in views
        ],
        "training": figures.training_figure([(run.curve, run.name, run.losses, run.validation) for run in runs], pens),
        "defaults": figures.DEFAULTS,
        "rows": rows,
    }
    script, plotly = source("page.js"), get_plotlyjs()
    policy = (
        f"default-src 'none'; script-src '{hash_of(plotly)}' '{hash_of(script)}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    content = environment.get_template("page.html").render(
        title=title,
        policy=policy,
        style=source("page.css"),
        answer=answer(shown[0]),
        views=views,
        shown=shown,
        pens=pens,
        text=text,
        listed=listed,
        verdicts=verdict_table,
        runs=runs,
        common=set.intersection(*lines) if lines else set(),
        made={key: str(value) for key, value in made.items() if value not in (None, "")},
        data=data,
        plotly=plotly,
        script=script,
    )
    return content.encode("utf-8", "replace").decode()


def source(name: str) -> str:
    return (files("posexp.report") / "web" / name).read_text(encoding="utf-8")


def hash_of(script: str) -> str:
    """Return the hash of an inline script for a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def views_of(shown: Table) -> list[Table]:
    """Return a table under each metric: changes against the own training length, its own metric, then the others."""
    found = [replace(shown, measure=metric) for metric in dict.fromkeys([CHANGE, shown.measure, *METRICS.values()])]
    return [table for table in found if is_known(table)] or [shown]


def is_known(table: Table) -> bool:
    """Return whether a table has values of its metric other than changes of a length against itself."""
    return any(table.measure != CHANGE or length != min(table.trained[curve]) for curve, length in table.values)
