"""The row of rows.jsonl and rows.csv: one run under one protocol at one length.

Shape suffixes: N targets, D documents.
"""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np

from posexp.errors import Misuse
from posexp.output.text import csv_text
from posexp.runs.run import Run
from posexp.storage import jsonl, untrusted
from posexp.storage.untrusted import is_count, is_loss, is_perplexity, is_share, is_text

# The types of columns, with the check of a stored value.
Text = Annotated[str, is_text]
Count = Annotated[int, is_count]
Loss = Annotated[float, is_loss]
Perplexity = Annotated[float, is_perplexity]
Share = Annotated[float, is_share]
ABSENT = "NA"  # a missing value in published files of older versions
Copied = object  # of any type: posexp computes nothing with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row, with its columns in the order of rows.jsonl.

    Columns with a default may be missing in rows of older versions. `extra` holds the columns of other versions.
    `document_sums` has "document:targets:sum" for each document, separated by spaces: its index in the split, the
    number of its targets, and the sum of their losses in nats.
    """

    run: str  # name of the run's folder
    scheme: Text | None = None  # label of the run, in most cases the name of its scheme; for a checkpoint, its name
    seed: Count  # seed of the initial weights and the data order; 0 for a checkpoint
    train_length: Count  # training length, in tokens
    judged_from: Count | None = None  # the training length, if the row only pretends that it is (eval.judged_from)
    trained_window: Text | None = None  # attention window of training
    weights: Text | None = None  # first 12 hex digits of the sha256 of the checkpoint
    bos: Text | None = None  # BOS token that a checkpoint's inputs begin with
    corpus: Text | None = None  # name of another text than that of training
    length: Count  # tokens of context, or size of a task
    protocol: Text  # name of the protocol
    stride: Count | None = None  # tokens scored per step, as the protocol applies it
    window: Text  # attention window of this evaluation
    transform: Text | None = None  # name of the transform
    control: Text | None = None  # change beyond the training length: window (attention cut) or shuffled (text)
    targets: Count | None = None  # number of scored tokens
    targets_hash: Text  # hash of the targets; rows with equal hashes score the same tokens
    nll: Loss | None = None  # mean loss, in nats per token
    ppl: Perplexity | None = None  # perplexity, exp of nll
    bits_per_byte: Loss | None = None  # loss in bits per byte of UTF-8 text
    accuracy: Share | None = None  # share of targets that are the model's most probable token
    exact_match: Share | None = None  # tasks: share of examples answered without any error
    ci_low: Perplexity | None = None  # lower end of the perplexity's 95 % interval over documents
    ci_high: Perplexity | None = None  # upper end of it
    crossing_share: Share | None = None  # share of targets whose context begins before their document
    tokens_per_second: Copied = None  # tokens read per second; empty where a row shares the passes of another
    peak_memory: Copied = None  # peak in bytes; on a CPU that of the process, with memory that it keeps free
    kernel_path: Text | None = None  # how attention was computed
    status: Text | None = None  # ok, undefined (past the scheme's end), out of memory, or non-finite
    transform_settings: Text | None = None  # options of the transform as applied at this length
    split: Copied = None  # train, valid or test; all where the text has one split
    documents: Count | None = None  # number of documents with targets
    documents_in_split: Copied = None  # number of documents of the split
    precision: Text | None = None  # float32 or bfloat16
    device: Copied = None  # GPU, or CPU with its threads
    matmul: Copied = None  # library that multiplies matrices on a CPU
    control_of: Text | None = None  # controls: attention window of the row that the control belongs to
    byte_count: Text | None = None  # exact, scaled or mean: how the bytes of single tokens were counted
    document_sums: Text | None = None  # document:targets:sum of losses in nats, separated by spaces
    optimum: Loss | None = None  # tracks: mean loss of the best possible predictor that reads the same, in nats
    optimum_sums: Text | None = None  # tracks: the same as document_sums, of the best possible predictor
    primary: Count | None = None  # length that posexp compare compares first (eval.primary)
    origin: Text | None = None  # "checkpoint" for one that posexp has not trained
    chosen_by: Text | None = None  # key_tokens: the run that chose the targets; "itself" for the model that scores them
    curve: Text | None = None  # only in rows.csv: label of the curve
    recipe: Text | None = None  # only in rows.csv: key of runs that differ in training length and seed alone
    extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @staticmethod
    def of(values: dict[str, Any]) -> "Row":
        """Return the row of a JSON object, whose columns must be checked."""
        known = {name: value for name, value in values.items() if name in NAMES}
        return Row(**known, extra={name: value for name, value in values.items() if name not in NAMES})

    def values(self) -> dict[str, Any]:
        """Return the columns as they are stored: COLUMNS, and others unless they are None."""
        named = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in named.items() if value is not None or name in COLUMNS} | self.extra

    def key(self, columns: tuple[str, ...]) -> tuple[object, ...]:
        """Return the values of columns, with None for the empty ones that rows of older versions lack."""
        return tuple(getattr(self, column) or None for column in columns)

    @property
    def outcome(self) -> str:
        """The status; "non-finite" for an ok row without a finite perplexity."""
        status = self.status or "ok"
        if status != "ok":
            return status
        return "ok" if self.nll is not None and self.nll < 700 else "non-finite"  # exp(710) overflows

    @property
    def loss(self) -> float:
        """The loss in nats, NaN without one."""
        return math.nan if self.nll is None else self.nll

    @property
    def sums(self) -> "DocumentSums | None":
        """The sums of losses over each document; None in failed rows and in those of older versions."""
        return None if self.document_sums is None else parse_sums(self.document_sums)

    def best(self) -> "Row":
        """Return the row of the best possible predictor on a track, which reads the same."""
        return replace(self, nll=self.optimum, document_sums=self.optimum_sums)

    @property
    def variant(self) -> str:
        """The difference of the evaluation (of a control: of its row) from training: "", " · window bca 64 · yarn"."""
        window, trained = self.control_of or self.window or "full", self.trained_window or "full"
        judged = f"judged from {self.judged_from}" if self.judged_from else ""
        chosen = "chosen by itself" if self.chosen_by == "itself" else ""
        parts = [judged, chosen, f"window {window}" if window != trained else "", self.transform or ""]
        return "".join(f" · {part}" for part in parts if part)

    def line(self) -> str:
        """Return the row as one line for the terminal."""
        value = f"ppl {self.ppl:.2f}" if self.ppl is not None else self.status
        if self.exact_match is not None:
            value = f"{100 * self.exact_match:.1f} % exactly right"
        elif self.ci_low is not None:
            value = f"{value} [{self.ci_low:.2f}, {self.ci_high:.2f}]"
        window = f"window {self.window}" if self.window != self.trained_window and not self.control else ""
        control = {"window": "window cut", "shuffled": "far text shuffled"}.get(self.control or "", "")
        how = "".join(f", {part}" for part in (window, self.transform, control) if part)
        return f"{self.run}: {self.protocol} {self.length}{how}: {value}"


class DocumentSums(NamedTuple):
    """The losses of a row by document: indices in the split (int64 [D], ascending), counts of targets and sums of
    losses in nats (float64 [D] each)."""

    documents: np.ndarray
    counts: np.ndarray
    sums: np.ndarray


def sums_of(loss_N: np.ndarray, document_N: np.ndarray) -> str:
    """Return the column `document_sums` of losses in nats [N] of targets in documents [N]."""
    document_D, index_N, count_D = np.unique(document_N, return_inverse=True, return_counts=True)
    sum_D = np.bincount(index_N, weights=loss_N.astype(np.float64))
    columns = zip(document_D.tolist(), count_D.tolist(), sum_D.tolist(), strict=True)
    return " ".join(f"{document}:{count}:{total!r}" for document, count, total in columns)


@lru_cache(maxsize=1 << 16)
def parse_sums(text: str) -> DocumentSums | None:
    """Return the sums of a column `document_sums`; None if it is damaged."""
    try:
        table_3D = np.array([part.split(":") for part in text.split(" ")], dtype=np.float64).reshape(-1, 3).T
    except ValueError:
        return None
    document_D, count_D, _ = table_3D
    if not np.isfinite(table_3D).all() or (np.diff(document_D) <= 0).any() or (count_D < 1).any():
        return None
    table_3D.flags.writeable = False  # rows with equal columns share it
    return DocumentSums(document_D.astype(np.int64), *table_3D[1:])


# The first columns of rows.csv, in its order. They are stored even if they are None.
COLUMNS = (
    *("run", "scheme", "seed", "train_length", "length", "protocol", "stride", "window", "transform", "control"),
    *("targets", "targets_hash", "documents", "nll", "ppl", "bits_per_byte", "accuracy", "exact_match"),
    *("ci_low", "ci_high", "crossing_share", "tokens_per_second", "peak_memory", "kernel_path", "status"),
)
# The columns that two rows of the same measurement share.
KEY = (
    *("protocol", "length", "stride", "window", "transform", "transform_settings", "control"),
    *("targets_hash", "weights", "precision", "judged_from"),
)
NAMES = tuple(column.name for column in fields(Row) if column.name != "extra")


def checks() -> tuple[jsonl.Columns, jsonl.Columns]:
    """Return the checks of the columns that every row must have, and of those that it may have."""
    needed: dict[str, Callable[[Any], bool]] = {}
    known: dict[str, Callable[[Any], bool]] = {}
    hints = get_type_hints(Row, include_extras=True)
    for column in fields(Row):
        for kind in (hints[column.name], *get_args(hints[column.name])):
            for check in getattr(kind, "__metadata__", ()):
                (needed if column.default is MISSING else known)[column.name] = check
    return needed, known


NEEDED, KNOWN = checks()


def read_rows(run: Run, say: Callable[[str], None]) -> list[Row]:
    """Return the rows of a run, with `run` set to the folder's name; damaged lines are skipped and go to `say`."""
    return [Row.of({**values, "run": run.name}) for values in jsonl.read_lines(run.rows, say, NEEDED, KNOWN)]


def rows_to_csv(rows: list[Row]) -> str:
    """Return the rows as CSV: COLUMNS, then the other columns that have values.

    None and "" become empty fields, and text that would be read as another value is written as JSON. Values are not
    escaped for spreadsheets, not even those that begin with "=". Raises Misuse if there are too many columns.
    """
    lines = [{key: value for key, value in row.values().items() if value not in (None, "")} for row in rows]
    used = dict.fromkeys(key for line in lines for key in line)
    extras = [key for key in dict.fromkeys([*NAMES, *used]) if key in used and key not in COLUMNS]
    if len(extras) > jsonl.MOST_COLUMNS:
        raise Misuse(f"the rows have {len(extras):,} unknown columns: choose runs with --runs")
    return csv_text([*COLUMNS, *extras], [{key: field_of(value) for key, value in line.items()} for line in lines])


def rows_of_csv(text: str, say: Callable[[str], None]) -> list[Row]:
    """Return the rows of a CSV file that `rows_to_csv` wrote; lines that cannot be rows are reported by `say`."""
    found = []
    for number, line in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
        values = {key: value_of(field) for key, field in line.items() if key and field not in ("", ABSENT, None)}
        if (valid := jsonl.valid_row(jsonl.line_of(values), NEEDED, KNOWN)) is not None:
            found.append(Row.of(valid))
        else:
            say(f"line {number} of the CSV file is not a row, so it is skipped")
    return found


def field_of(value: Any) -> Any:
    """Return the CSV field of a value. A string that would parse as another value is quoted as in JSON."""
    if isinstance(value, str):
        return value if value_of(value) == value != ABSENT else json.dumps(value)
    return None if value is None else json.dumps(value)


def value_of(field: str) -> Any:
    try:
        return untrusted.parsed(field.encode())
    except ValueError:
        return field
