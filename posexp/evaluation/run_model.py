"""A trained run of posexp as a subject of an evaluation."""

from dataclasses import replace
from pathlib import Path

import torch

from posexp.config.commands import EvalCommand
from posexp.config.sections import DataConfig, EvalConfig, Split
from posexp.data import Store
from posexp.data.load import load_store
from posexp.errors import Misuse
from posexp.evaluation.interfaces import View
from posexp.evaluation.variants import Variant, variants
from posexp.model.base import Model
from posexp.model.device import autocast, choose_precision
from posexp.output.console import say
from posexp.runs.experiment import Experiment
from posexp.windows import Window
from posexp.windows.sliding import Sliding


class Trained:
    """A trained run with its text. Raises the errors of `Experiment`; Misuse if other text cannot be read."""

    def __init__(self, experiment: Experiment, command: EvalCommand):
        config, self.run, self.device = experiment.config, experiment.run, experiment.device
        self.store, self.eval = experiment.store, command.eval_config(config.eval)
        if command.data is not None:
            self.store, self.eval = other_text(command, command.data, self.store.tokenizer_path, self.eval)
        self.model = experiment.model.eval()
        self.model.path = self.eval.attention
        self.scheme = self.model.scheme  # as trained
        self.tokens = self.store.split(self.eval.split)
        self.trained_length, self.train_length = config.train.length, judged_length(config.train.length, self.eval)
        self.about = {
            "run": self.run.name,
            "scheme": config.label,
            "seed": config.seed,
            "train_length": self.train_length,
            "judged_from": self.eval.judged_from,
            "trained_window": self.window_name(self.model.window),
            "weights": experiment.weights,
            "corpus": "" if command.data is None else text_name(self.store, self.eval.split),
        }
        self.trained_window = self.model.window

    def window_name(self, window: Window) -> str:
        return window.fingerprint() if self.model.attends else "none"

    def notes(self) -> list[str]:
        """Return a line for each control that this model cannot have."""
        missing = self.eval.controls and not self.model.attends
        return ["no control with attention cut: no block has attention"] if missing else []

    def variants(self, command: EvalCommand) -> list[Variant]:
        if command.window is not None and not self.model.attends:
            raise Misuse("window=… has no effect: no block of the run has attention; omit it")
        dims = replace(
            self.scheme.dims, train_length=self.trained_length
        )  # the parent's for a scheme under a transform
        return variants(dims, self.trained_window, command.window, command.transform)

    def view(self, variant: Variant, length: int) -> View:
        model = self.model if variant.transform is None else variant.transform.model(self.model)
        assert isinstance(model, Model)
        model.scheme, model.window = scheme, _ = variant.applied(self.scheme, length)
        precision, settings = choose_precision(self.eval.precision, self.device), variant.settings(length)
        with torch.no_grad(), autocast(precision, self.device):  # as in scoring: the path may depend on both
            path = model.kernel_path(self.device)
        return View(model, scheme.max_length, path, self.window_name(variant.window), settings)

    def cut(self, variant: Variant) -> Variant | None:
        """Return the variant with a sliding window of the training length; None unless its attention is full."""
        if not variant.window.full or not self.model.attends:
            return None
        return Variant(variant.name, variant.transform, Sliding(self.scheme.dims, self.train_length))


def judged_length(trained: int, how: EvalConfig) -> int:
    """Return the length that verdicts take for the training length. Raises Misuse if it is longer than that."""
    if how.judged_from is not None and how.judged_from >= trained:
        raise Misuse(f"eval.judged_from={how.judged_from} must be shorter than the training length, {trained}")
    return how.judged_from or trained


def other_text(command: EvalCommand, data: DataConfig, tokenizer: Path, how: EvalConfig) -> tuple[Store, EvalConfig]:
    """Load other text in the tokens of a tokenizer.json; return it and `how` with its split, or with all documents."""
    splits = "split" in command.eval or data.valid is not None or data.store is not None
    cache = command.cache or data.cache
    store = load_store(replace(data, tokenizer=str(tokenizer), cache=cache, hold_out=data.hold_out and splits), say)
    chosen = how.split if splits or how.split.value in store.meta["splits"] else Split.train
    return store, replace(how, split=chosen)


def text_name(store: Store, split: Split) -> str:
    """Return the name of a split's text: its files, or the corpus."""
    corpus: str = store.meta["corpus"]
    return dict(part.partition(": ")[::2] for part in corpus.split(", ")).get(split.value) or corpus
