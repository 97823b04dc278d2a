"""The protocol exact_match: how many examples of a task a model solves, at sizes of training and at larger ones.

Each token of the answer is scored after the right tokens before it. Greedy decoding writes exactly the right answer if
and only if the likeliest token is right everywhere, so an example is right if all of its targets are. The line end
belongs to the answer, because an answer that goes on is wrong.
"""

from typing import Any

import numpy as np

from posexp.config.sections import Split
from posexp.data import tasks, tokenizer
from posexp.data.store import Tokens
from posexp.errors import Misuse
from posexp.evaluation.targets import Measurement

FEWEST, MOST = 64, 500  # examples per size; in between, the bound on targets decides


def exact_match(tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None) -> list[Measurement]:
    """Return measurements of new examples of each size in `lengths`, one document each.

    No example occurs in training. A line end precedes each example, as in training. Raises Misuse if the text belongs
    to no task.
    """
    store = tokens.store
    about = store.meta.get("task") if store is not None else None
    if store is None or about is None:
        raise Misuse(f"exact_match needs a task to solve: choose one with data={'|'.join(tasks.TASKS)}")
    encode = tokenizer.load_tokenizer(store.tokenizer_path).encode
    split = split_of(tokens)
    return [measure(encode, tokens, about, split, size, bound) for size in lengths]


def measure(
    encode: Any, tokens: Tokens, about: dict[str, Any], split: Split, size: int, bound: int | None
) -> Measurement:
    """Return the measurement of examples of one size."""
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
    return Measurement("exact_match", size, None, windows_W3, tokens=drawn, task=True, trained=about["size"])


def split_of(tokens: Tokens) -> Split:
    """Return the split whose file has the checksum of `tokens`."""
    assert tokens.store is not None
    files = tokens.store.meta["files"]
    return next(split for split in Split if files[f"{split.value}.bin"]["sha256"] == tokens.sha256)
