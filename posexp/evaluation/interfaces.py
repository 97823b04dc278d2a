"""What can be evaluated: a trained run of posexp, or a checkpoint of someone else's."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from posexp.config.commands import EvalCommand
from posexp.config.sections import EvalConfig
from posexp.data import Store, Tokens
from posexp.evaluation.variants import Variant
from posexp.runs.run import Run


class LanguageModel(Protocol):
    """A causal language model in two steps, so that logits are only made where they are scored."""

    training: bool

    def __call__(self, tokens_BT: Tensor, last: int | None) -> Tensor: ...  # hidden states [B, T, D], or of the last

    def logits(self, hidden_ND: Tensor) -> Tensor: ...  # [N, V] float32

    def eval(self) -> nn.Module: ...

    def train(self, mode: bool = True) -> nn.Module: ...


@dataclass(frozen=True)
class View:
    """The model as one variant lets it see inputs of at most some length.

    `max_length`: the longest input it is defined for, None without a limit; `prefix_stable`: whether what comes
    after a token leaves its loss alone, so that one pass serves several lengths; `window` and `settings` as rows
    name them.
    """

    model: LanguageModel
    max_length: int | None
    prefix_stable: bool
    kernel_path: str
    window: str
    settings: str


class Subject(Protocol):
    """`run` holds the rows; `store` the text in the model's own tokens, of which `tokens` are measured; `eval` how it
    is evaluated; `about` the columns that every row of it has: run, scheme, seed, train_length, trained_window,
    weights."""

    run: Run
    store: Store
    tokens: Tokens
    eval: EvalConfig
    about: dict[str, Any]
    train_length: int

    def variants(self, command: EvalCommand) -> list[Variant]:
        """The model as it is, then with each transform asked for, through the window asked for.

        Raises Misuse for a transform or window that cannot be built.
        """

    def view(self, variant: Variant, length: int) -> View:
        """For inputs of at most `length` tokens. Raises NotApplicable if the variant has nothing to change."""

    def cut(self, variant: Variant) -> Variant | None:
        """The variant with attention cut to the training length; None where that is not possible or is so already."""
