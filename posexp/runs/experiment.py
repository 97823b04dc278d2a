"""The experiment: a run with its configuration, text and trained model, each opened once, when it is first used."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from posexp.config.commands import TrainCommand
from posexp.config.sections import DataConfig
from posexp.data import Store
from posexp.data.load import load_store
from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.model import flash
from posexp.model.base import Model
from posexp.model.decoder import build_model
from posexp.output.console import say
from posexp.runs import checkpoint
from posexp.runs.loggers import Loggers
from posexp.runs.parent import outside
from posexp.runs.run import Run


class Experiment:
    """A run, whose `config`, `store`, `model` and `weights` are opened when they are first used.

    `cache` and `trust` are those of the command: the folder of token stores, and whether to run external code. Training
    has a subclass with a model of its own (posexp/training/prepare.py), which evaluation then uses as it is.
    """

    loggers: Loggers | None = None  # that are open already

    def __init__(self, run: Run, device: torch.device, cache: str | None = None, trust: bool = False):
        self.run, self.device, self.cache, self.trust = run, device, cache, trust

    @cached_property
    def config(self) -> TrainCommand:
        """The configuration; Misuse for an external component without `trust`, since a run folder is untrusted data."""
        stored = self.run.config()
        if code := outside(stored, self.trust):
            raise Misuse(f"it names code from outside posexp, {code!r}: set trust=true to run it")
        return stored

    @cached_property
    def store(self) -> Store:
        """The token store that the run was trained on, found by its key, since the text may have changed or moved.

        The store is looked up in `cache`, else in the run's cache folder if that exists, else in the default cache, so
        that a run from another machine creates no folder. Raises Misuse if the store is missing and the local text does
        not have its hash, RunFailed if its tokens are not those of the run.
        """
        data = self.config.data
        theirs = (Path(data.cache).expanduser() / "tokens").is_dir()
        place = self.cache or (data.cache if theirs else DataConfig().cache)
        name = self.run.provenance().get("store")
        store = load_store(replace(data, cache=place, store=str(name)), say)
        self.run.check_store(store)
        return store

    @cached_property
    def model(self) -> Model:
        """The trained model, in evaluation mode on `device`. Raises RunFailed if the run's files are damaged."""
        config = self.config
        self.run.refuse_links()
        saved = checkpoint.restore(self.run.folder / "checkpoint", say)
        if saved is None or saved["step"] != config.train.steps:
            raise RunFailed("its final checkpoint is damaged or missing; repeat its train command")
        model = build_sized(config, saved["tensors"])
        checkpoint.apply(saved["tensors"], model)
        model.scheme.progress(1.0)
        flash.activate(self.device, model.scheme.dims.head_dim)
        return model.eval().to(self.device)

    @cached_property
    def weights(self) -> str:
        """The identifier of the trained weights: twelve hex digits of the final checkpoint's sha256."""
        return checkpoint.read_about(self.run.folder / "checkpoint", self.config.train.steps)["sha256"][:12]


def build_sized(trained: TrainCommand, tensors: dict[str, torch.Tensor]) -> Model:
    """Build the model of a configuration, whose sizes must be those of the checkpoint's tensors.

    The model is first built on the meta device, because an untrusted configuration may request any amount of memory.
    Raises RunFailed if the sizes differ or the model cannot be built.
    """
    embedding_VD = tensors.get("model.embedding.weight", torch.empty(0, 0))
    sizes = embedding_VD.shape[1:] == (trained.model.d_model,) and trained.model.n_layer <= len(tensors)
    if not sizes or not len(embedding_VD):
        raise RunFailed("the checkpoint does not fit the model: its config.yaml describes another model")
    try:
        with torch.device("meta"):
            shapes = checkpoint.shapes(build_model(trained, len(embedding_VD)))
        checkpoint.check_shapes(tensors, shapes)
        return build_model(trained, len(embedding_VD))
    except PosexpError:
        raise
    except Exception as error:  # constructors raise any error for invalid options
        raise RunFailed(f"its config.yaml describes no model: {checkpoint.damage_reason(error)}") from error
