"""The preparation of training: a checked configuration, the run's folder, the model and its text."""

import json
import time
from contextlib import ExitStack
from functools import cached_property

import torch

from posexp import mixers, schemes, temperatures
from posexp.attention import flex, kernel_path
from posexp.config.commands import TrainCommand
from posexp.config.fields import check_room
from posexp.config.sections import AttentionGate, AttentionPath, Split
from posexp.data import Store
from posexp.data.load import load_store
from posexp.data.sampler import SequenceSampler
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.evaluation.plan import check_protocols, own_lengths, plan
from posexp.jobs.ranks import Place
from posexp.model import cpu, flash
from posexp.model.decoder import base_length, build_model, scheme_dims, transformed
from posexp.model.device import choose_precision, describe
from posexp.output.console import logger, say
from posexp.runs import checkpoint, provenance
from posexp.runs.experiment import Experiment
from posexp.runs.loggers import check_loggers
from posexp.runs.run import Run
from posexp.runs.status import preparing, worked_on
from posexp.schemes import Scheme
from posexp.storage import atomic
from posexp.training.continued import chain, check_parent, start_of
from posexp.training.distributed import Ranks
from posexp.training.optim import build_optimizer


class Training(Experiment):
    """The experiment of a run that this process trains, alone or as one of several.

    The store is that of the command's own data. `prepare_training` sets the sampler of training sequences and the
    model, which evaluation uses after training. `loggers` are open while the run is trained, in the first process.
    """

    sampler: SequenceSampler

    def __init__(self, config: TrainCommand, device: torch.device, ranks: Ranks | None = None):
        super().__init__(Run.of(config), device, trust=True)
        self.config, self.ranks = config, ranks or Ranks(Place())
        self.precision = choose_precision(config.train.precision, device)

    @cached_property
    def store(self) -> Store:
        """The token store of the configuration, built if it is missing."""
        return load_store(self.config.data, say)


def prepare_training(training: Training, held: ExitStack) -> None:
    """Write the run's folder with all that is known before its first step, hold its lock in `held`, build the model.

    Raises Misuse before anything is written if the configuration cannot work.
    """
    run, config, device = training.run, training.config, training.device
    with preparing(run):
        check_model(config, device)
        check_text(training)
        start = start_of(config, run, training.store.vocab_size) if training.ranks.first else None
    if training.ranks.first:
        run.create(config)
        held.enter_context(run.lock())
        held.enter_context(worked_on(run))
    begun = (run.folder / "provenance.json").is_file()
    cpu.prepare(run.provenance().get("matmul", cpu.MKL) if begun else None)
    training.model = build_model(config, training.store.vocab_size).to(device)
    training.model.path = config.train.attention
    flash.activate(device, training.model.scheme.dims.head_dim)
    about = f"{describe(device)}, {training.precision.value}, attention={training.model.path.value}"
    logger.debug(f"{run.name}: {about}, {training.sampler.used_documents:,} documents")
    if begun:
        run.check_store(training.store)
    else:
        describe_run(training)
    if training.ranks.first:
        checkpoint.tidy(run.folder / "checkpoint")
        if start is not None:
            training.model.load_state_dict(start)
            checkpoint.save(run.folder / "checkpoint", 0, training.model, build_optimizer(training.model, config.train))


def check_model(config: TrainCommand, device: torch.device) -> None:
    """Raise Misuse for sizes that the scheme or the window cannot have, and for two that do not go together.

    Also for a logger that is not installed.
    """
    check_loggers(config.loggers)
    check_room("results", Run.of(config).folder)
    check_protocols(config.eval.protocols or [])
    dims = scheme_dims(config.model, base_length(config), config.mixer)
    scheme = schemes.from_config(config.scheme, dims)
    if config.mixer is not None and config.model.target:
        raise Misuse(f"mixer=… replaces blocks of posexp's own decoder: omit it, or model.target={config.model.target}")
    if config.mixer is not None:
        check_mixer(config, scheme)
    built = temperatures.from_config(config.temperature, scheme)
    scheme, window = transformed(config, built)
    if scheme.reads_text and config.data.tokenizer != "bytes":
        what = f"{scheme.fingerprint()} reads positions from bytes"
        raise Misuse(f"{what}: choose data.tokenizer=bytes, which data=addition has, not {config.data.tokenizer}")
    limit = scheme.max_length
    if limit is not None and limit < config.train.length:
        raise Misuse(f"{scheme.fingerprint()} ends at {limit} tokens: train.length={config.train.length} is longer")
    kernel_path(scheme, dims, window, config.train.attention)
    if config.train.attention is AttentionPath.flex:
        flex.check_gradient(device)


def check_mixer(config: TrainCommand, scheme: Scheme) -> None:
    """Raise Misuse for sizes that the mixer cannot have, and for options of attention if no block has attention."""
    model = config.model
    mixers.from_config(config.mixer, Dims(model.d_model, model.n_head, model.n_layer, config.train.length))
    if mixers.attention_blocks(config.mixer, model.n_layer):
        return
    if every := config.mixer.get("attention_every"):
        raise Misuse(f"mixer.attention_every={every} must be at most model.n_layer={model.n_layer}")
    without_effect = {
        "temperature": config.temperature is not None,
        "+scheme": any(scheme.layer(0).acts(hook) for hook in ("rotate", "distance_bias", "bias", "attend")),
        "window": config.window is not None,
        "train.attention": config.train.attention is not AttentionPath.auto,
        "model.qk_norm": model.qk_norm,
        "model.n_kv_head": model.n_kv_head,
        "model.attention_gate": model.attention_gate is not AttentionGate.none,
        "model.short_conv": model.short_conv,
    }
    for option, chosen in without_effect.items():
        if chosen:
            remedy = "choose +scheme=none" if option == "+scheme" else f"omit {option}"
            raise Misuse(
                f"{option} acts in attention, which this mixer replaces in every block: {remedy}, or keep attention in "
                "every k-th block by mixer.attention_every=<k>"
            )


def check_text(training: Training) -> None:
    """Raise Misuse for text that is too short for training or evaluation. Only the token store is written."""
    config, store = training.config, training.store
    training.sampler = SequenceSampler(store.split(Split.train), config.train.length, config.data.cross_documents)
    check_parent(config, store)
    held_out = store.split(config.eval.split)
    plan(held_out, config.eval, own_lengths(held_out, config.train.length, config.eval))


def describe_run(training: Training) -> None:
    """Write tokenizer.json and then provenance.json, which marks that both exist."""
    run, store, model = training.run, training.store, training.model
    about = {
        **provenance.environment(),
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "device": describe(training.device),
        "matmul": cpu.matmul(),
        "kernel_path": model.kernel_path(training.device),
        "flash_attention": flash.active(training.device),
        "scheme": model.scheme.fingerprint(),
        "scheme_notes": model.scheme.notes(),
        "window": model.window.fingerprint() if model.attends else "none",
        **({} if model.mixer is None else {"mixer": model.mixer.fingerprint()}),
        **chain(training.config),
        "parameters": model.parameter_counts(),
        "store": store.key,
        "tokenizer_sha256": store.meta["files"]["tokenizer.json"]["sha256"],
        "train_sha256": store.split(Split.train).sha256,
        "documents": training.sampler.used_documents,
        "documents_left_out": training.sampler.left_out,
    }
    atomic.write_file(run.folder / "tokenizer.json", store.tokenizer_path.read_text())
    atomic.write_file(run.folder / "provenance.json", json.dumps(about, indent=1))
