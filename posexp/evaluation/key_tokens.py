"""The protocol key_tokens: the tokens that need far text, by the choice of one run, scored in others.

LongPPL, Fang et al. 2024, arXiv 2410.23771, with the rule of their find_key_token: the loss behind a short context
exceeds that behind a long one by more than 2 nats, and that behind the long one is below 2. What a run gains on tokens
that it has chosen itself is selection: of losses that differ by noise alone, the rule takes those that fell.

The list is a JSON file, bound to its text by the checksum of the split and by the hash of the targets:

    <chooser>/losses/key_tokens-<long>-<hash>.json

Shape suffix: N targets.
"""

import json
from pathlib import Path

import numpy as np

from posexp.config.sections import EvalConfig
from posexp.data.store import Tokens
from posexp.errors import Misuse
from posexp.evaluation.losses import Losses, path_of, read_losses
from posexp.evaluation.rows import Row, read_rows
from posexp.evaluation.spans import TooLong
from posexp.evaluation.targets import Chooser, Measurement, Measurements, documents_of, targets_hash
from posexp.output.console import say
from posexp.runs.run import Run
from posexp.storage import atomic, untrusted

WHERE = "same_targets"  # the protocol whose losses choose


def key_tokens(
    tokens: Tokens, lengths: list[int], longest: int, stride: int, bound: int | None, config: EvalConfig
) -> Measurements:
    """The tokens of a list, or those that a run chooses at its training length and at the longest of `lengths`.

    Every length scores all of them, each behind exactly L tokens of its own document. The stride and the bound are
    ignored. Raises Misuse without a list or for one of another text.
    """
    if config.key_tokens is None:
        raise Misuse(
            "key_tokens needs the choice of another run: eval.key_tokens=<its folder, or a list it has written>"
        )
    place = Path(config.key_tokens).expanduser()
    chosen = choose(Run(place), tokens, max(lengths), config) if place.is_dir() else read_list(place, tokens)
    chooser, target_N = chosen
    room = int((target_N - tokens.starts[documents_of(tokens, target_N)]).min())
    if room < max(lengths):
        raise TooLong("a key token has too few tokens before it", room)
    return [
        Measurement("key_tokens", n, None, np.stack((target_N - n, target_N, target_N + 1), axis=1), chooser=chooser)
        for n in lengths
    ]


def is_key(short_N: np.ndarray, long_N: np.ndarray, gain: float = 2.0, most: float = 2.0) -> np.ndarray:
    """Return which targets are key tokens, bool [N], by their losses behind a short and a long context, in nats."""
    return np.asarray((short_N - long_N > gain) & (long_N < most))


def choose(run: Run, tokens: Tokens, long: int, config: EvalConfig) -> tuple[Chooser, np.ndarray]:
    """Return the targets of same_targets that a run chooses at `long` tokens, int64 [N] ascending; write the list."""
    rows = [row for row in read_rows(run, say) if row.protocol == WHERE and not row.control and not row.variant]
    of_length = {(row.length, row.targets_hash): row for row in rows if row.status == "ok"}  # the latest
    for (length, hash_), row in of_length.items():
        shorter = of_length.get((row.train_length, hash_))
        if length == long > row.train_length and shorter is not None:
            target_N, short_N = sorted_losses(run, shorter)
            if targets_hash(tokens, target_N) != hash_:
                raise Misuse(f"eval.key_tokens={run.folder}: its losses belong to another text or another split")
            key_N = target_N[is_key(short_N, sorted_losses(run, row)[1], config.key_gain, config.key_loss)]
            if not len(key_N):
                raise Misuse(
                    f"{run.name} has no key token at {long} tokens: no loss falls by more than "
                    f"eval.key_gain={config.key_gain:g} nats to less than eval.key_loss={config.key_loss:g}"
                )
            publish(run, row, key_N, len(target_N), tokens, config)
            return Chooser(run.name, row.weights or ""), key_N
    raise Misuse(
        f"eval.key_tokens={run.folder} has no losses of {WHERE} at its training length and at {long} tokens: "
        f"measure them by posexp eval --runs {run.name} --lengths {long}"
    )


def sorted_losses(run: Run, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Return (targets ascending, their losses in nats). Raises Misuse if the file is missing or damaged."""
    path = path_of(run.folder, row)
    try:
        losses: Losses = read_losses(path)
    except (OSError, ValueError) as error:
        raise Misuse(f"{path} cannot be read ({getattr(error, 'strerror', '') or error}): evaluate again") from error
    order = np.argsort(losses.target, kind="stable")
    return losses.target[order], losses.nll[order]


def publish(run: Run, row: Row, key_N: np.ndarray, among: int, tokens: Tokens, config: EvalConfig) -> None:
    """Write the list of a run beside its losses, unless it is there, and log where it is."""
    hash_ = targets_hash(tokens, key_N)
    path = run.folder / "losses" / f"key_tokens-{row.length}-{hash_}.json"
    about = {
        **{"chooser": run.name, "weights": row.weights or "", "short": row.train_length, "long": row.length},
        **{"gain": config.key_gain, "loss": config.key_loss, "among": among},
        **{"split_sha256": tokens.sha256, "targets_hash": hash_, "targets": key_N.tolist()},
    }
    if not path.is_file():
        run.refuse_links()
        atomic.write_file(path, json.dumps(about) + "\n")
        say(f"key_tokens: {run.name} chooses {len(key_N):,} of {among:,} targets; the list is {path}")


def read_list(path: Path, tokens: Tokens) -> tuple[Chooser, np.ndarray]:
    """Return the chooser and the targets of a list that a run has written; Misuse if it belongs to another text."""
    try:
        about = untrusted.object_of(untrusted.read_bytes(path))
        targets = about["targets"]
        texts = [about[key] for key in ("chooser", "weights", "split_sha256", "targets_hash")]
        if not isinstance(targets, list) or not all(map(untrusted.is_count, targets)):
            raise ValueError("targets must be whole numbers")
        if not all(map(untrusted.is_text, texts)):
            raise ValueError("chooser, weights and hashes must be text")
    except KeyError as error:
        raise Misuse(f"eval.key_tokens={path} is not a list of key tokens: it lacks {error.args[0]!r}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or error
        raise Misuse(f"eval.key_tokens={path} cannot be read: {reason}") from error
    target_N = np.array(targets, dtype=np.int64)
    chooser, weights, sha256, hash_ = texts
    inside = len(target_N) and target_N[0] > 0 and target_N[-1] < len(tokens.ids) and (np.diff(target_N) > 0).all()
    if sha256 != tokens.sha256 or not inside or targets_hash(tokens, target_N) != hash_:
        raise Misuse(f"eval.key_tokens={path} belongs to another text or another split, or was altered")
    return Chooser(chooser, weights), target_N


def self_chosen(plan: Measurements, run: str, weights: str) -> list[str]:
    """Return a line if a run scores tokens of its own choice."""
    if any(row.chooser is not None and row.chooser.weights == weights for row in plan):
        return [
            f"{run}: it has chosen these key tokens itself, so their gain is selection and shows no use of context: "
            "choose by another run"
        ]
    return []
