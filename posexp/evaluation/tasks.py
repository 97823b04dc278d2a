"""The protocols of tasks, on examples of training sizes and larger ones.

exact_match: how many examples a model solves. by_index: how many tokens of the longest answers, by their place in them.
Each token of the answer is scored after the right tokens before it. Greedy decoding writes exactly the right answer if
and only if the likeliest token is right everywhere, so an example is right if all of its targets are. The line end
belongs to the answer, because an answer that goes on is wrong.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from posexp.config.sections import Split
from posexp.data import tasks, tokenizer
from posexp.data.store import Tokens
from posexp.errors import Misuse
from posexp.evaluation.targets import Measurement, Measurements, targets_of

FEWEST, MOST = 64, 500  # examples per size; in between, the bound on targets decides
INDICES = 32  # ranges of places in an answer


def exact_match(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Return measurements of new examples of each size in `lengths`, one document each.

    No example occurs in training. A line end precedes each example, as in training. Raises Misuse if the text belongs
    to no task.
    """
    return [measure("exact_match", tokens, size, bound) for size in lengths]


def by_index(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> Measurements:
    """Return measurements of the answers of the largest size, by the place of their tokens: the row's `length` is the
    largest place in it, of INDICES ranges of equal size. The line end is not scored.

    The examples are those of exact_match. Raises Misuse if the text belongs to no task.
    """
    whole = replace(measure("by_index", tokens, max(lengths), bound), task=False)
    first_W, stop_W = whole.windows[:, 1], whole.windows[:, 2]
    place_N = targets_of(whole.windows)[0] - np.repeat(first_W, stop_W - first_W) + 1
    last_N = np.repeat(stop_W - first_W, stop_W - first_W)
    place_N[place_N == last_N] = 0  # the line end
    edges = np.unique(np.linspace(0, place_N.max(), INDICES + 1).round().astype(int)).tolist()
    return [replace(whole, length=high, by=place_N, within=(low, high)) for low, high in pairwise(edges)]


def measure(protocol: str, tokens: Tokens, size: int, bound: int | None) -> Measurement:
    """Return the measurement of examples of one size. Raises Misuse if the text belongs to no task."""
    store = tokens.store
    about = store.meta.get("task") if store is not None else None
    if store is None or about is None:
        raise Misuse(f"{protocol} needs a task to solve: choose one with data={'|'.join(tasks.TASKS)}")
    encode = tokenizer.load_tokenizer(store.tokenizer_path).encode
    split = split_of(tokens)
    ids: list[int] = []
    windows: list[tuple[int, int, int]] = []  # one per example
    targets = 0
    for prompt, answer in tasks.examples(about["name"], range(size, size + 1), split):
        encoding = encode("\n" + tasks.line((prompt, answer)), add_special_tokens=False)
        begin, stop = len(ids), len(ids) + len(encoding.ids)
        scored = sum(last > 1 + len(prompt) for _, last in encoding.offsets)
        ids += encoding.ids
        windows.append((begin, stop - scored, stop))
        targets += scored
        if len(windows) >= MOST or (len(windows) >= FEWEST and bound is not None and targets >= bound):
            break
    windows_W3 = np.array(windows)
    starts = np.append(windows_W3[:, 0], len(ids))
    drawn = Tokens(np.array(ids, dtype=tokens.ids.dtype), starts, 0, "", tokens.store)
    return Measurement(protocol, size, None, windows_W3, tokens=drawn, task=True, trained=about["size"])


def split_of(tokens: Tokens) -> Split:
    """Return the split whose file has the checksum of `tokens`."""
    assert tokens.store is not None
    files = tokens.store.meta["files"]
    return next(split for split in Split if files[f"{split.value}.bin"]["sha256"] == tokens.sha256)
