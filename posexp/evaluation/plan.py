"""The plan of an evaluation: the table of protocols, and the measurements and controls of a run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posexp.config.fields import check_lengths
from posexp.config.sections import EvalConfig
from posexp.data.store import Tokens
from posexp.errors import Misuse
from posexp.evaluation import asked, bigrams, probes, protocols, tasks
from posexp.evaluation.key_tokens import key_tokens
from posexp.evaluation.rows import Row
from posexp.evaluation.spans import (
    TooLong,
    finer,
    head_reach,
    power_below,
    reach,
    stream_reach,
    target_sets,
)
from posexp.evaluation.targets import Measurement, Measurements, documents_of, targets_of

OWN_FACTORS = (1, 2, 4, 8, 16)
SHORTER = (2, 4, 8, 16)  # parts of the training length that same_targets measures too, by default
EIGHTH = 8  # the part that the verdict "collapses" compares with
# Most targets of a span at the training length, or a 64th of the length: more than 98 % of it from 512 tokens on.
FINE = 8
STRIDE = 32  # tokens, the default of eval.stride
FINAL = {"ok", "undefined", "non-finite"}  # statuses that another measurement would not change
WINDOW = "tokens in a window"
CONTEXT = "tokens of context before a target"
SPAN = "tokens from the beginning of a span to the end of its copy"
PLACE = "tokens up to the end of the passage"
SELECTED = "tokens of context before a selected target"
GAP = "tokens since the same one"
AGO = "tokens since it was stated"
SIZE = "size of the problem"
INDEX = "place in the answer"


@dataclass(frozen=True)
class Protocol:
    """A protocol and its properties.

    `axis` says what a length counts. `moving`: each length scores targets of its own. `drawn_only`: lengths are too
    many for a table. `weighted`: the mean weights targets. `slides`: spans advance by eval.stride. `reach` returns the
    longest length of the shared set of targets; it is None if the set depends on the longest requested length.
    `asked`: text with answers stated before is scored on these alone.
    `listed`: a list chooses the targets, so `cut` takes the configuration too.
    `paired`: each length beyond that of training has targets of its own, which are scored at both.
    """

    cut: Callable[..., Measurements]
    title: str
    axis: str = WINDOW
    moving: bool = False
    drawn_only: bool = False
    weighted: bool = False
    slides: bool = False
    listed: bool = False
    paired: bool = False
    asked: bool = False
    reach: Callable[[Tokens], int] | None = stream_reach

    @property
    def summed(self) -> bool:
        """Whether rows have the sums of losses by document, with which they are compared."""
        return not self.drawn_only and not self.weighted


PROTOCOLS = {
    protocol.cut.__name__: protocol
    for protocol in (
        Protocol(protocols.same_targets, "on the same targets as context grows", CONTEXT, asked=True, reach=reach),
        Protocol(
            protocols.level, "at the training length, on many targets", CONTEXT, moving=True, asked=True, reach=None
        ),
        Protocol(protocols.nonoverlapping, "in non-overlapping windows"),
        Protocol(protocols.sliding, "in sliding windows", slides=True),
        Protocol(protocols.sliding_late, "in sliding windows, the first left out", slides=True),
        Protocol(protocols.window_means, "in sliding windows, mean of the windows' means", weighted=True, slides=True),
        Protocol(protocols.overlapping, "in overlapping windows scored whole", moving=True, slides=True),
        Protocol(protocols.last_k, "of the last targets of each window", moving=True, slides=True),
        Protocol(protocols.fixed_windows, "in a fixed number of windows", moving=True),
        Protocol(protocols.truncated, "of truncated documents", moving=True, reach=head_reach),
        Protocol(protocols.document_heads, "in pieces of the documents' beginnings", reach=head_reach),
        Protocol(protocols.per_document, "in windows of one document each"),
        Protocol(protocols.rolling, "in rolling windows of one document each"),
        Protocol(protocols.per_position, "by position", CONTEXT, drawn_only=True, reach=None),
        Protocol(probes.induction, "on the second copy of a random span", SPAN),
        Protocol(probes.induction_absent, "on a random span that has no first copy", SPAN),
        Protocol(probes.repeats, "of rare tokens seen before", GAP, drawn_only=True, reach=None),
        Protocol(tasks.exact_match, "on new examples of a task", SIZE, moving=True, reach=None),
        Protocol(protocols.second_half, "of the second half of each window", moving=True),
        Protocol(probes.passage_at, "of one passage as its position grows", PLACE),
        Protocol(asked.by_distance, "of answers stated before", AGO, drawn_only=True, reach=None),
        Protocol(tasks.by_index, "by place in the answer", INDEX, drawn_only=True, reach=None),
        Protocol(key_tokens, "of tokens that need far text by the choice of a run", SELECTED, listed=True, reach=None),
        Protocol(bigrams.copyable, "of tokens that far text shows how to copy", SELECTED, paired=True, reach=reach),
        Protocol(
            bigrams.copyable_absent, "of tokens that nothing shows how to copy", SELECTED, paired=True, reach=reach
        ),
    )
}


def plan(tokens: Tokens, config: EvalConfig, lengths: list[int], train_length: int | None = None) -> Measurements:
    """Return the measurements of a split, longest first, as they often serve shorter ones, and controls if trained."""
    check_lengths(lengths)
    found: Measurements = []
    for name in config.protocols or own_protocols(tokens):
        if name == protocols.level.__name__:
            found += cut(PROTOCOLS[name], tokens, [train_length or min(lengths)], max(lengths), config)
            continue
        if PROTOCOLS[name].paired:
            found += paired_rows(name, tokens, config, lengths, train_length or min(lengths))
            continue
        trained = train_length if name == protocols.same_targets.__name__ else None
        for longest, of_set in sets_of(PROTOCOLS[name], tokens, lengths):
            if trained is not None:
                of_set = sorted({*of_set, *compared_lengths(trained, max(of_set), config)})
            rows = cut(PROTOCOLS[name], tokens, of_set, longest, config)
            rows = [as_trained(row, trained) for row in rows]
            if trained is not None and config.controls:
                longer = [row for row in rows if row.length > trained]
                rows += [replace(row, control=control) for row in longer for control in ("window", "shuffled")]
            found += sorted(rows, key=lambda row: -row.inputs)
    return found


def paired_rows(name: str, tokens: Tokens, config: EvalConfig, lengths: list[int], trained: int) -> Measurements:
    """Return the rows of a paired protocol, two for each longer length. Raises Misuse if there are none."""
    found: Measurements = []
    for longest, of_set in sets_of(PROTOCOLS[name], tokens, lengths):
        for length in (n for n in of_set if n > trained):
            found += [
                as_trained(row, trained) for row in cut(PROTOCOLS[name], tokens, [trained, length], longest, config)
            ]
    if not found:
        raise Misuse(
            f"{name} has nothing to score: choose a length well beyond the training length, {trained}, or a larger "
            "eval.targets"
        )
    return found


def as_trained(row: Measurement, trained: int | None) -> Measurement:
    """Return the row; at the training length with fewer targets per span, so that each has nearly that much context."""
    return row if trained is None or row.length != trained else finer(row, max(FINE, trained // 64))


def compared_lengths(trained: int, longest: int, config: EvalConfig) -> set[int]:
    """Return the lengths that same_targets measures beside those requested: the control "cropped", which is an ordinary
    row at the training length, an eighth of it, and by default the other parts too."""
    shorter = {trained // part for part in SHORTER if trained >= part} if config.lengths is None else set()
    return shorter | ({trained, max(1, trained // EIGHTH)} if trained < longest else set())


def sets_of(protocol: Protocol, tokens: Tokens, lengths: list[int]) -> list[tuple[int, list[int]]]:
    """Return (longest length, sorted lengths) of each set of targets on which `lengths` are measured."""
    if protocol.reach is None:
        return [(max(lengths), sorted(lengths))]
    return target_sets(sorted(lengths), protocol.reach(tokens), protocol.moving)


def cut(protocol: Protocol, tokens: Tokens, lengths: list[int], longest: int, config: EvalConfig) -> Measurements:
    """Return the measurements of one set of targets. Raises Misuse if the text is too short for them."""
    stride = config.stride or STRIDE
    if protocol.slides and stride > min(lengths):
        raise Misuse(
            f"eval.stride={stride} is longer than the shortest length, {min(lengths)}: choose a shorter stride"
        )
    try:
        found = protocol.cut(tokens, lengths, longest, stride, config.targets, *([config] if protocol.listed else []))
        if protocol.asked:
            found = [asked.only_asked(one, tokens, longest if protocol.reach else one.length) for one in found]
        return found
    except TooLong as error:
        possible = max(0, error.possible) if protocol.reach is None else power_below(error.possible)
        raise Misuse(
            f"{error} for evaluation length {max(lengths)}: the longest possible here is {possible}"
        ) from error


def announcement(tokens: Tokens, config: EvalConfig, lengths: list[int]) -> list[str]:
    """Return log lines that say which of `lengths` share a set of targets."""
    lines = []
    for name in config.protocols or own_protocols(tokens):
        protocol = PROTOCOLS[name]
        if protocol.reach is None or protocol.paired:
            continue
        reached = protocol.reach(tokens)
        for longest, of_set in sets_of(protocol, tokens, lengths):
            (measurement,) = cut(protocol, tokens, of_set[-1:], longest, config)
            text, target_N = measurement.tokens or tokens, targets_of(measurement.windows)[0][measurement.chosen]
            documents = len(np.unique(documents_of(text, target_N)))
            scored = f"{len(target_N):,} targets in {documents} of {len(text.starts) - 1} documents"
            loose = ""
            if config.targets is not None and len(target_N) > config.targets:
                read = f"{measurement.read:,} tokens are read at length {measurement.length}"
                loose = f"; eval.targets={config.targets} bounds whole spans loosely: {read}"
            if longest == reached:
                lines.append(f"{name}: reach {reached} tokens, up to which all lengths score the same {scored}{loose}")
            else:
                beyond = ", ".join(str(n) for n in of_set if n > max(reached, longest // 2))
                beside = "" if protocol.moving else " with the shorter lengths"
                lines.append(
                    f"{name}: {beyond} is beyond the reach of {reached} tokens: measured{beside} on a far set "
                    f"of {scored}, reported apart{loose}"
                )
    return lines


def is_moving(protocol: str) -> bool:
    """Return whether each length of a protocol has targets of its own; False for unknown protocols."""
    return protocol in PROTOCOLS and PROTOCOLS[protocol].moving


def shuffled_beyond(train_length: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function that shuffles text [B, T+1] before the last `train_length` inputs, alike for equal starts."""

    def shuffle(text_BT1: np.ndarray, start_B: np.ndarray) -> np.ndarray:
        far = text_BT1.shape[1] - 1 - train_length
        text_BT1 = text_BT1.copy()
        for text_T1, start in zip(text_BT1, start_B, strict=True):
            text_T1[:far] = np.random.default_rng(start).permutation(text_T1[:far])
        return text_BT1

    return shuffle


def check_protocols(names: list[str]) -> None:
    """Raise Misuse for an unknown protocol."""
    for name in names:
        if name not in PROTOCOLS:
            raise Misuse(f"unknown protocol {name!r}; choose from {', '.join(PROTOCOLS)}")


def own_protocols(tokens: Tokens) -> list[str]:
    """Return the default protocols of a text."""
    if task_of(tokens):
        return [tasks.exact_match.__name__]
    if asked.distances(tokens) is not None:
        return [protocols.same_targets.__name__, protocols.level.__name__, asked.by_distance.__name__]
    return [protocols.same_targets.__name__, protocols.level.__name__, protocols.nonoverlapping.__name__]


def own_lengths(tokens: Tokens, train_length: int, config: EvalConfig) -> list[int]:
    """Return config.lengths, or by default OWN_FACTORS times the training length, or a task's size, within reach."""
    if config.lengths is not None:
        return config.lengths
    task = task_of(tokens)
    unit = (
        task["size"] if task and (config.protocols or own_protocols(tokens)) == own_protocols(tokens) else train_length
    )
    lengths = [unit * factor for factor in OWN_FACTORS]
    headline = PROTOCOLS[(config.protocols or own_protocols(tokens))[0]]
    if headline.reach is not None:
        reached = headline.reach(tokens)
        lengths = [n for n in lengths if n <= reached] or lengths[:1]
    while True:
        try:
            plan(tokens, config, lengths)
            return lengths
        except Misuse:
            if len(lengths) == 1:
                raise
            lengths.pop()


def task_of(tokens: Tokens) -> dict[str, Any] | None:
    """Return {"name", "size"} of the task that generated the text; None for other text."""
    return None if tokens.store is None else tokens.store.meta.get("task")


def stands(row: Row) -> bool:
    """Return whether a row is final and has the losses by document that comparisons need."""
    if row.status != "ok":
        return row.status in FINAL
    return row.sums is not None or row.protocol not in PROTOCOLS or not PROTOCOLS[row.protocol].summed
