"""posexp check hf=…: whether what a checkpoint's config.json declares of positions has an effect in the model.

Each declaration is removed or changed in a copy of the config, and the outputs of the two models are compared: a class
that ignores a declaration gives the same. Positions of an input begin at 0, and end at 16, L or 8 L tokens, where L is
the training length: some scalings act beyond it alone.

Shape suffixes: B batch, T tokens, V vocabulary.
"""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from posexp.config.commands import CheckCommand
from posexp.errors import Misuse, RunFailed
from posexp.hf.changes import SMALL, rebuilt
from posexp.hf.model import Pretrained, load_causal_lm, maxima_of, text_config
from posexp.hf.quiet import quiet
from posexp.hf.source import find_source
from posexp.output.console import console
from posexp.output.grid import Grid

TOKENS = 16  # of the input: half at the first positions, half at the last
FAR = 8  # times the training length
SAME = 1e-6  # largest relative change of outputs that is no effect
WINDOWS = ("sliding_window", "window_size", "attention_chunk_size", "attention_window_size")
SCALED = ("rope_type", "type")  # the two spellings of the kind of scaling
Change = Callable[[Any], None]  # of the text part of a config


def check_declared(command: CheckCommand) -> None:
    """Print the effect of each declaration. Raises RunFailed if one has none, Misuse if the checkpoint cannot load."""
    assert command.hf is not None
    if command.schemes:
        raise Misuse("schemes and hf=… cannot be combined: check schemes or a checkpoint")
    source = find_source(command.hf)
    model = load_causal_lm(source, command.trust)
    raw = source.config.get("text_config") or source.config
    rows, ignored = [], []
    for name, change in declarations(raw):
        effects = [effect(model, change, end) for end in ends(model)]
        known = [one for one in effects if one is not None]
        works = any(one > SAME for one in known)
        rows.append([name, *("-" if one is None else f"{one:.1e}" for one in effects), "acts" if works else "ignored"])
        ignored += [] if works else [name]
    if not rows:
        raise Misuse(f"hf={command.hf}: its config.json declares no rotary positions, scaling or window to check")
    heads = ["declared", "to 16", *(f"to {end:,}" for end in ends(model)[1:]), "in the model"]
    Grid(heads, rows, names=1, title=f"{source.name}: change of outputs without it").show(console())
    if ignored:
        raise RunFailed(
            f"{type(model).__name__} ignores {len(ignored)} of {len(rows)} declarations: {', '.join(ignored)}"
        )


def declarations(raw: dict[str, Any]) -> list[tuple[str, Change]]:
    """Return the declarations of a config.json, each with the change that removes it or that another value makes."""
    given = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    parts = [part for part in given.values() if isinstance(part, dict)] or [given]  # by type of layer, or one for all
    found: list[tuple[str, Change]] = []
    for part in parts:
        kind = next((part[key] for key in SCALED if part.get(key)), "default")
        if kind != "default":
            factor = f", factor {part['factor']:g}" if isinstance(part.get("factor"), (int, float)) else ""
            found.append((f"scaling {kind}{factor}", without_scaling))
    if raw.get("rope_theta") or any(part.get("rope_theta") for part in parts):
        found.append(("rope_theta", another_base))
    for name in WINDOWS:
        if isinstance(raw.get(name), int) and raw.get("use_sliding_window", True):
            found.append((f"{name} {raw[name]}", partial(with_small_window, name)))
    return found


def with_small_window(name: str, text: Any) -> None:
    setattr(text, name, SMALL)


def rope_parts(text: Any) -> list[dict[str, Any]]:
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    return [part for part in given.values() if isinstance(part, dict)] or ([given] if given else [])


def without_scaling(text: Any) -> None:
    for part in rope_parts(text):
        kept: dict[str, Any] = {key: part[key] for key in ("rope_theta", "partial_rotary_factor") if key in part}
        part.clear()
        part.update(kept, rope_type="default")


def another_base(text: Any) -> None:
    for part in rope_parts(text):
        part["rope_theta"] = 2 * (part.get("rope_theta") or 10000.0)
    if hasattr(text, "rope_theta"):
        text.rope_theta = 2 * (text.rope_theta or 10000.0)


def ends(model: Pretrained) -> list[int]:
    """Return the last positions of the inputs: those of plain text, L and 8 L."""
    text = text_config(model.config)
    original = [part.get("original_max_position_embeddings") for part in rope_parts(text)]
    trained = next((n for n in (*original, *maxima_of(model.config)) if isinstance(n, int)), None)
    return [TOKENS] if trained is None else [TOKENS, trained, FAR * trained]


def effect(model: Pretrained, change: Change, end: int) -> float | None:
    """Return the relative change of outputs; None if the model takes no positions or has none so late."""
    if end != TOKENS and "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    config = copy.deepcopy(model.config)
    change(text_config(config))
    try:
        before, after = (outputs(rebuilt(model, one), end) for one in (copy.deepcopy(model.config), config))
    except (IndexError, RuntimeError):  # a table of positions ends before
        if end == TOKENS:
            raise
        return None
    return float((before - after).abs().max() / before.abs().max())


@torch.no_grad()
def outputs(model: Pretrained, end: int) -> Tensor:
    """Return the logits of an input at positions that end before `end`, [1, T, V]."""
    pos_1T = torch.cat((torch.arange(TOKENS // 2), torch.arange(end - TOKENS // 2, end)))[None]
    tokens_1T = (5 + 7 * torch.arange(TOKENS)[None]) % text_config(model.config).vocab_size
    extra = {} if end == TOKENS else {"position_ids": pos_1T}
    with quiet():
        logits: Tensor = model(input_ids=tokens_1T, use_cache=False, **extra).logits
    return logits
