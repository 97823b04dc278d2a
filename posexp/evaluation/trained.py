"""A trained run of posexp as something to evaluate."""

import copy

import torch

from posexp.attention import kernel_path
from posexp.commands import EvalCommand
from posexp.config import DataConfig, Split
from posexp.data import Store, load
from posexp.evaluation.subject import View
from posexp.evaluation.variants import Variant, variants
from posexp.log import say
from posexp.restore import restore
from posexp.runs import Run
from posexp.windows.sliding import Sliding


class Trained:
    """Raises what `restore` does; Misuse for other text that cannot be read."""

    def __init__(self, run: Run, command: EvalCommand, device: torch.device):
        restored = restore(run, command.cache, command.trust, device)
        self.run, self.store, self.model, self.device = run, restored.store, restored.model, device
        if command.data is not None:
            self.store = load(in_tokens_of(restored.store, command), say)
        self.scheme = self.model.scheme  # as trained
        self.eval = command.eval_config(restored.config.eval)
        self.tokens = self.store.split(self.eval.split)
        self.model.path = self.eval.attention
        self.train_length = restored.config.train.length
        self.about = {
            "run": run.name,
            "scheme": restored.config.label,
            "seed": restored.config.seed,
            "train_length": self.train_length,
            "trained_window": self.model.window.fingerprint(),
            "weights": restored.weights,
            "corpus": "" if command.data is None else named(self.store, self.eval.split),
        }
        self.trained_window = self.model.window

    def variants(self, command: EvalCommand) -> list[Variant]:
        return variants(self.scheme.dims, self.trained_window, command.window, command.transform)

    def view(self, variant: Variant, length: int) -> View:
        self.model.scheme, self.model.window = scheme, window = variant.applied(self.scheme, length)
        path = kernel_path(scheme, scheme.dims, window, self.model.path, self.device)
        settings = variant.settings(length)
        return View(self.model, scheme.max_length, scheme.prefix_stable, path, variant.window.fingerprint(), settings)

    def cut(self, variant: Variant) -> Variant | None:
        """Only where every token sees all before it: what another window hides is part of the question."""
        if not variant.window.full:
            return None
        return Variant(variant.name, variant.transform, Sliding(self.scheme.dims, self.train_length))


def in_tokens_of(own: Store, command: EvalCommand) -> DataConfig:
    """Other text, cut into the tokens that the run knows."""
    data = copy.copy(command.data)
    assert data is not None
    data.tokenizer, data.cache = str(own.tokenizer_path), command.cache or data.cache
    return data


def named(store: Store, split: Split) -> str:
    """What the text of a split is called: its files, or the corpus."""
    corpus = store.meta["corpus"]
    return dict(part.partition(": ")[::2] for part in corpus.split(", ")).get(split.value) or corpus
