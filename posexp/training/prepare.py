"""What training needs before its first step: a usable configuration, the run's folder, the model and its text."""

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from posexp.attention import flex, kernel_path
from posexp.config.commands import TrainCommand
from posexp.config.fields import check_room
from posexp.config.sections import AttentionPath, Precision, Split
from posexp.data import Store
from posexp.data.load import load_store
from posexp.data.sampler import Windows
from posexp.errors import Misuse
from posexp.evaluation.plan import check_protocols, own_lengths, plan
from posexp.model import cpu
from posexp.model.decoder import Decoder, build_model
from posexp.model.device import choose_precision, describe
from posexp.output.console import logger, say
from posexp.runs import checkpoint, provenance
from posexp.runs.run import Run
from posexp.runs.status import preparing, worked_on
from posexp.storage import atomic
from posexp.training.distributed import Ranks


@dataclass
class Parts:
    """What the training loop works with."""

    model: Decoder
    windows: Windows
    device: torch.device
    precision: Precision
    ranks: Ranks


def prepare(run: Run, config: TrainCommand, ranks: Ranks, device: torch.device, held: ExitStack) -> Parts:
    """The run's folder with all that is known before its first step, `held` for this process; and the run's parts.

    Raises Misuse before anything is written if the configuration cannot work.
    """
    with preparing(run):
        store, windows = usable(config, device)
    if ranks.first:
        run.create(config)
        held.enter_context(run.lock())
        held.enter_context(worked_on(run))
    begun = (run.folder / "provenance.json").is_file()
    cpu.prepare(run.provenance().get("matmul", cpu.MKL) if begun else None)
    model = build_model(config, store.vocab_size).to(device)
    model.path = config.train.attention
    parts = Parts(model, windows, device, choose_precision(config.train.precision, device), ranks)
    about = f"{describe(device)}, {parts.precision.value}, attention={model.path.value}"
    logger.debug(f"{run.name}: {about}, {windows.used_documents:,} documents")
    describe_run(run, config, store, parts)
    if ranks.first:
        checkpoint.tidy(run.folder / "checkpoint")
    return parts


def usable(config: TrainCommand, device: torch.device) -> tuple[Store, Windows]:
    """The token store and the training windows of a configuration that can be trained and evaluated.

    Raises Misuse otherwise; nothing but the token store is written.
    """
    check_room("results", Run.of(config).folder)
    check_protocols(config.eval.protocols or [])
    check_parts(config, device)
    store = load_store(config.data, say)
    windows = Windows(store.split(Split.train), config.train.length, config.data.cross_documents)
    held_out = store.split(config.eval.split)
    plan(held_out, config.eval, own_lengths(held_out, config.train.length, config.eval))  # refuses impossible lengths
    return store, windows


def check_parts(config: TrainCommand, device: torch.device) -> None:
    """Raises Misuse for sizes that the scheme or the window cannot have, and for two that do not go together."""
    model = build_model(config, 2)
    limit = model.scheme.max_length
    if limit is not None and limit < config.train.length:
        raise Misuse(
            f"{model.scheme.fingerprint()} ends at {limit} tokens: train.length={config.train.length} is longer"
        )
    kernel_path(model.scheme, model.scheme.dims, model.window, config.train.attention)
    if config.train.attention is AttentionPath.flex:
        flex.check_gradient(device)


def describe_run(run: Run, config: TrainCommand, store: Store, parts: Parts) -> None:
    """Writes provenance.json once. Raises RunFailed if the run was trained on other tokens than there are now."""
    path = run.folder / "provenance.json"
    if path.is_file():
        run.check_store(store)
        return
    about = {
        **provenance.environment(),
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "device": describe(parts.device),
        "matmul": cpu.matmul(),
        "kernel_path": kernel_path(
            parts.model.scheme, parts.model.scheme.dims, parts.model.window, parts.model.path, parts.device
        ),
        "scheme": parts.model.scheme.fingerprint(),
        "window": parts.model.window.fingerprint(),
        "parameters": parts.model.parameter_counts(),
        "store": store.key,
        "tokenizer_sha256": atomic.sha256(store.tokenizer_path),
        "train_sha256": store.split(Split.train).sha256,
        "documents": parts.windows.used_documents,
        "documents_left_out": parts.windows.left_out,
    }
    atomic.write_file(run.folder / "tokenizer.json", store.tokenizer_path.read_text())
    atomic.write_file(path, json.dumps(about, indent=1))  # last: it says that both are there
