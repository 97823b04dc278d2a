"""What to measure: the protocols there are, and the controls that belong to a run's same targets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posexp.config import EvalConfig
from posexp.data.store import Tokens
from posexp.errors import Misuse
from posexp.evaluation import probes, protocols, tasks
from posexp.evaluation.targets import Measurement
from posexp.knobs import check_lengths

OWN_FACTORS = (1, 2, 4, 8, 16)
WINDOW = "tokens in a window"
CONTEXT = "tokens of context before a target"
SPAN = "tokens from the beginning of a span to the end of its copy"
GAP = "tokens since the same one"
SIZE = "size of the problem"


@dataclass(frozen=True)
class Protocol:
    """`axis` says what a length is; `moving`, that each length scores other targets; `drawn_only`, that its lengths
    are too many for a table."""

    cut: Callable[[Tokens, list[int], int, int | None], list[Measurement]]
    title: str
    axis: str = WINDOW
    moving: bool = False
    drawn_only: bool = False


PROTOCOLS = {
    protocol.cut.__name__: protocol
    for protocol in (
        Protocol(protocols.same_targets, "on the same targets as context grows", CONTEXT),
        Protocol(protocols.nonoverlapping, "in non-overlapping windows"),
        Protocol(protocols.sliding, "in sliding windows"),
        Protocol(protocols.sliding_late, "in sliding windows, the first left out"),
        Protocol(protocols.window_means, "in sliding windows, mean of the windows' means"),
        Protocol(protocols.overlapping, "in overlapping windows scored whole", moving=True),
        Protocol(protocols.last_k, "of the last targets of each window", moving=True),
        Protocol(protocols.fixed_windows, "in a fixed number of windows", moving=True),
        Protocol(protocols.truncated, "of truncated documents", moving=True),
        Protocol(protocols.document_heads, "in pieces of the documents' beginnings"),
        Protocol(protocols.per_document, "in windows of one document each"),
        Protocol(protocols.per_position, "by position", CONTEXT, drawn_only=True),
        Protocol(probes.induction, "on the second copy of a random span", SPAN),
        Protocol(probes.induction_absent, "on a random span that has no first copy", SPAN),
        Protocol(probes.repeats, "of rare tokens seen before", GAP, drawn_only=True),
        Protocol(tasks.exact_match, "on new examples of a task", SIZE, moving=True),
    )
}


def plan(tokens: Tokens, config: EvalConfig, lengths: list[int], train_length: int | None = None) -> list[Measurement]:
    """What to measure on a split, longest first: a pass over long inputs often serves shorter ones.

    `train_length` adds the controls. Raises Misuse if a length cannot be measured, naming the longest that can.
    """
    check_lengths(lengths)
    stride = config.stride or max(1, min(lengths) // 4)
    if stride > min(lengths):
        raise Misuse(f"eval.stride={stride} is longer than the shortest length, {min(lengths)}")
    found: list[Measurement] = []
    for name in config.protocols or own_protocols(tokens):
        rows = PROTOCOLS[name].cut(tokens, sorted(lengths), stride, config.targets)
        if name == protocols.same_targets.__name__ and config.controls and train_length is not None:
            rows += controls(rows, train_length)
        found += sorted(rows, key=lambda row: -row.inputs)
    return found


def controls(rows: list[Measurement], train_length: int) -> list[Measurement]:
    """What says whether `rows` (of same_targets) profit from context beyond the training length, on their targets.

    The input cropped to the training length is a row like them, added unless it is there. Beside each longer one: the
    window of attention cut to the training length, and what lies further back than that shuffled. None where a
    block of targets is longer than the training length.
    """
    longer = [row for row in rows if row.length > train_length]
    stride = rows[0].stride
    assert stride is not None
    if not longer or stride > train_length:
        return []
    found = [replace(row, control=control) for row in longer for control in ("window", "shuffled")]
    if train_length not in [row.length for row in rows]:
        windows_W3 = longer[0].windows.copy()
        windows_W3[:, 0] = windows_W3[:, 2] - 1 - train_length
        found.append(replace(longer[0], length=train_length, windows=windows_W3))
    return found


def shuffled_beyond(train_length: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Shuffles text [B, T+1] but for its last train_length inputs and its last target; the same way each time for
    windows that start at the same token."""

    def shuffle(text_BT1: np.ndarray, start_B: np.ndarray) -> np.ndarray:
        far = text_BT1.shape[1] - 1 - train_length
        text_BT1 = text_BT1.copy()
        for text_T1, start in zip(text_BT1, start_B, strict=True):
            text_T1[:far] = np.random.default_rng(start).permutation(text_T1[:far])
        return text_BT1

    return shuffle


def check_protocols(names: list[str]) -> None:
    """Raises Misuse for a protocol that does not exist."""
    for name in names:
        if name not in PROTOCOLS:
            raise Misuse(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}")


def own_protocols(tokens: Tokens) -> list[str]:
    """What text is measured by unless something else is asked for."""
    if task_of(tokens):
        return [tasks.exact_match.__name__]
    return [protocols.same_targets.__name__, protocols.nonoverlapping.__name__]


def own_lengths(tokens: Tokens, train_length: int, config: EvalConfig) -> list[int]:
    """config.lengths, or 1, 2, 4, 8 and 16 times the training length, as far as the text allows; of a task, of the
    largest size in training.

    Raises Misuse if it does not even allow the training length.
    """
    if config.lengths is not None:
        return config.lengths
    task = task_of(tokens)
    unit = (
        task["size"] if task and (config.protocols or own_protocols(tokens)) == own_protocols(tokens) else train_length
    )
    lengths = [unit * factor for factor in OWN_FACTORS]
    while True:
        try:
            plan(tokens, config, lengths)
            return lengths
        except Misuse:
            if len(lengths) == 1:
                raise
            lengths.pop()


def task_of(tokens: Tokens) -> dict[str, Any] | None:
    """{"name", "size"} of the task that the text is made of, if it is of one."""
    return None if tokens.store is None else tokens.store.meta.get("task")
