"""The interfaces of what can be evaluated: a trained run of posexp or an external checkpoint."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from posexp.config.commands import EvalCommand
from posexp.config.sections import EvalConfig
from posexp.data import Store, Tokens
from posexp.evaluation.variants import Variant
from posexp.runs.run import Run


class LanguageModel(Protocol):
    """A causal language model in two steps, so that logits are computed only where tokens are scored."""

    training: bool

    def __call__(
        self, tokens_BT: Tensor, last: int | None
    ) -> Tensor: ...  # hidden states [B, T, D] of all tokens, or of the `last` ones

    def logits(self, hidden_ND: Tensor) -> Tensor: ...  # [N, V] float32

    def eval(self) -> nn.Module: ...

    def train(self, mode: bool = True) -> nn.Module: ...


@dataclass(frozen=True)
class View:
    """The model under one variant, for inputs up to a fixed length.

    `max_length` is the longest input that the model accepts, None without a limit. `window` and `settings` are values
    of the rows' columns.
    """

    model: LanguageModel
    max_length: int | None
    kernel_path: str
    window: str
    settings: str


class Subject(Protocol):
    """A model to evaluate, with its text.

    `run` is the folder of the rows. `store` holds the text in the model's tokens, and `tokens` is the split to measure.
    `eval` is the configuration. `about` holds the columns that all rows share: run, scheme, seed, train_length,
    trained_window, weights, corpus.
    """

    run: Run
    store: Store
    tokens: Tokens
    eval: EvalConfig
    about: dict[str, Any]
    train_length: int

    def variants(self, command: EvalCommand) -> list[Variant]:
        """Return the model without a transform, then with each requested transform, under the requested window."""

    def view(self, variant: Variant, length: int) -> View:
        """Return the model for inputs up to `length` tokens. Raises NotApplicable if the variant does not apply."""

    def notes(self) -> list[str]:
        """Return lines on what this model's evaluation lacks."""

    def cut(self, variant: Variant) -> Variant | None:
        """Return the variant with attention cut to the training length; None if its attention cannot be cut further."""
