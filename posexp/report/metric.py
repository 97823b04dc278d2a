"""The metrics of tables, with their format and axis."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posexp.report.cell import Cell


USABLE_EXACT_MATCH = 85.6  # percent: RULER's threshold of an effective length (Hsieh et al. 2024, arXiv 2404.06654)


@dataclass(frozen=True)
class Value:
    """The value of a metric in a cell. `low` and `high` are None if there is no interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Metric:
    """A metric, how it is formatted and how its axis is drawn.

    `meaning` completes "Each cell is …". `over` and `by` are the sample and method of a single seed's 95 % interval.
    The axis is logarithmic with `log`, logarithmic beyond ±`linear`, and always covers `whole`.
    """

    name: str
    title: str
    axis: str
    meaning: str
    of: Callable[["Cell"], Value | None]  # returns None if the rows lack the metric
    write: Callable[[float], str]
    over: str = "documents"
    by: str = "a bootstrap"
    log: bool = False
    linear: float | None = None
    whole: tuple[float, float] | None = None
    high_is_good: bool = False

    @property
    def label(self) -> str:
        """The label of the axis."""
        return f"{self.axis} (log scale)" if self.log else self.axis

    def level(self, value: float | None) -> float:
        """Return the position of a value on the axis, log10 for `log` since matplotlib's log axis ends near 1e308."""
        if value is None or math.isinf(value):
            return math.nan
        if self.linear and abs(value) > self.linear:
            return math.copysign(1 + math.log10(abs(value) / self.linear), value)
        return math.log10(value) if self.log else value / (self.linear or 1)


def perplexity(cell: "Cell") -> Value | None:
    return None if cell.ppl is None else Value(cell.ppl, cell.low, cell.high)


def loss(cell: "Cell") -> Value | None:
    if cell.nll is None:
        return None
    return Value(cell.nll, *(None if bound is None else math.log(bound) for bound in (cell.low, cell.high)))


def bits_per_byte(cell: "Cell") -> Value | None:
    """Return bits per byte with the loss's interval, scaled since samples have about equal bytes per target."""
    value = loss(cell)
    if value is None or cell.bits_per_byte is None:
        return None
    if not value.value:
        return Value(cell.bits_per_byte, None, None)
    ratio = cell.bits_per_byte / value.value
    return Value(cell.bits_per_byte, *(None if bound is None else bound * ratio for bound in (value.low, value.high)))


def exact_match(cell: "Cell") -> Value | None:
    """Return exact match in percent."""
    if cell.exact_match is None:
        return None
    bounds = cell.exact_match_bounds or (None, None)
    return Value(100 * cell.exact_match, *(None if bound is None else 100 * bound for bound in bounds))


def token_accuracy(cell: "Cell") -> Value | None:
    """Return the share of targets that are the likeliest token, in percent."""
    if cell.accuracy is None:
        return None
    return Value(100 * cell.accuracy, *(None if bound is None else 100 * bound for bound in cell.accuracy_bounds))


def change(cell: "Cell") -> Value | None:
    """Return the change of perplexity in percent."""
    if cell.change is None:
        return None
    low, high = (None if nats is None else percent(nats) for nats in (cell.change.low, cell.change.high))
    return Value(percent(cell.change.value), low, high)


def percent(nats: float) -> float:
    """Convert a difference of losses in nats to a change of perplexity in percent."""
    return 100 * math.expm1(min(nats, 700.0))


def signed(value: float) -> str:
    """Format a percentage as −0.3, +48.1, +12,345 or +1.2e+07."""
    text = f"{value:+.1f}" if abs(value) < 99.95 else f"{value:+,.0f}" if value < 99_999.5 else f"{value:+.1e}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def digits(value: float) -> str:
    """Format with four significant digits, and with two from ten thousand on: 21.40, 1532, 1.2e+05."""
    if value >= 9999.5:
        return f"{value:.1e}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(value)))}f}"


PPL = Metric(
    "ppl",
    "Perplexity",
    "perplexity",
    "a perplexity, exp of the mean loss over seeds; lower is better",
    perplexity,
    digits,
    log=True,
)
NLL = Metric(
    "nll", "Loss", "loss in nats per token", "a mean loss in nats per token; lower is better", loss, "{:.3f}".format
)
BITS_PER_BYTE = Metric(
    "bits_per_byte",
    "Bits per byte",
    "bits per byte",
    "a mean loss in bits per byte of text; lower is better",
    bits_per_byte,
    "{:.3f}".format,
)
EXACT_MATCH = Metric(
    "exact_match",
    "Exact match",
    "exact match in percent",
    "the percentage of examples whose targets are all the likeliest token; higher is better",
    exact_match,
    "{:.1f}".format,
    over="examples",
    by="Wilson's score",
    whole=(0, 100),
    high_is_good=True,
)
TOKEN_ACCURACY = Metric(
    "token_accuracy",
    "Token accuracy",
    "token accuracy in percent",
    "the percentage of targets that are the likeliest token after the right ones; higher is better",
    token_accuracy,
    "{:.1f}".format,
    whole=(0, 100),
    high_is_good=True,
)
CHANGE = Metric(
    "change",
    "Change of perplexity",
    "change from the training length in percent",
    "a change of perplexity against the curve's own training length",
    change,
    signed,
    over="seeds and documents",
    by="a jackknife",
    linear=1,
)
METRICS = {measure.name: measure for measure in (PPL, NLL, BITS_PER_BYTE, EXACT_MATCH, TOKEN_ACCURACY)}
