"""What a positional scheme is: one small class whose hooks say where it acts.

Shape suffixes: B batch, T tokens of the sequence, Q query tokens, K key tokens, D width of the
residual stream, H heads, C channels of a head, N distances.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from posexp.config.components import from_node, options_of
from posexp.dims import Dims

if TYPE_CHECKING:
    from posexp.windows import Window

# Of token embeddings, and of a table that a scheme adds to them. The decoder divides by it on the way in: tokens
# enter at unit scale.
EMBEDDING_STD = 0.02


class Scheme(nn.Module):
    """One way of telling a decoder where its tokens are. A hook left alone does nothing.

    A subclass takes `dims` first and then its hyper-parameters, typed and without defaults: those
    live in configs/scheme/<name>.yaml. Hooks are functions of positions; none keeps a table between
    calls. Positions, angles, distances and biases are int64 or float32 whatever autocast does, and
    float64 where activations are. The four promises are attributes of the class or the instance, or properties.
    """

    max_length: int | None = None  # longest input the scheme is defined for
    relative = False  # logits unchanged when all positions shift together
    reads_positions = True  # False: order comes from the causal mask alone
    prefix_stable = True  # False: the output at a position depends on the whole input's length

    def __init__(self, dims: Dims):
        super().__init__()
        self.dims = dims

    def acts(self, hook: str) -> bool:
        """Whether the hook of that name does anything, told without a call: whether the scheme overrides it.

        `kernel_path` goes by this. A scheme whose hook sometimes does nothing says here when.
        """
        return overrides(self, hook, Scheme)

    def layer(self, index: int) -> "Scheme":
        """The scheme of block `index`, for schemes with parameters or rules of their own per layer."""
        return self

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        """Positions the sequences are given: int64 or float32 [B or 1, T]. May sample while `self.training`."""
        return torch.arange(T, device=device)[None]

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        """The residual stream before the first block, from token embeddings of unit scale."""
        return x_BTD

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys as attention compares them, in every block. They may become wider; logits are scaled by
        the head's own C^-0.5."""
        return q_BHTC, k_BHTC

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        """[H, N] float32 added to the scaled logits of keys `gap_N` (int64, 0 and up) positions back."""
        return None

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        """[B or 1, H, Q, K] float32 added to the scaled logits, where distance alone does not decide."""
        return None

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: "Window"
    ) -> Tensor | None:
        """The whole of causal attention, [B, H, T, C], for schemes that read content (`x_BTD`: the block's input).

        Queries and keys are those that `rotate` gave; `window.blocks(T, device)` says who sees whom.
        """
        return None

    def progress(self, share: float) -> None:
        """Called before every training step with the share of training that is done, and with 1.0 to evaluate."""

    def fingerprint(self) -> str:
        """One line that describes what was really built; recorded with every run."""
        return f"{type(self).__name__}({self.extra_repr()})"


def overrides(scheme: Scheme, hook: str, base: type[Scheme]) -> bool:
    """Whether the scheme has a hook of its own in place of that of `base`."""
    return owner(type(scheme), hook) != owner(base, hook)


@torch.compiler.assume_constant_result  # under torch.compile, two reads of one method are two objects
def owner(kind: type[Scheme], hook: str) -> str:
    """Return the name of the class that defines the hook for `kind`."""
    return next(f"{c.__module__}.{c.__qualname__}" for c in kind.__mro__ if hook in vars(c))


def build_scheme(name: str, dims: Dims, **hyper: Any) -> Scheme:
    """The scheme of configs/scheme/`name`.yaml with `hyper` in place of its defaults.

    Raises Misuse for an unknown name or hyper-parameter, or a value of the wrong type.
    """
    return from_config(options_of("scheme", name, hyper), dims)


def from_config(node: dict[str, Any], dims: Dims) -> Scheme:
    """The scheme that a config section describes: `_target_` and its hyper-parameters.

    Raises Misuse if the class cannot be found, an option is unknown, missing or of the wrong type,
    or the scheme refuses `dims`.
    """
    return from_node("scheme", Scheme, node, dims)


def inner_scheme(value: Any, dims: Dims) -> Scheme:
    """A scheme inside another one: its config section, its name, or the scheme itself, made for the same `dims`."""
    if isinstance(value, Scheme):
        return value
    return build_scheme(value, dims) if isinstance(value, str) else from_config(value, dims)


def bias_between(scheme: Scheme, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
    """[B or 1, H, Q, K]: the scheme's bias between any positions, whether a function of distance or of both; None
    without one."""
    gap_BQK = (pos_BQ[:, :, None] - pos_BK[:, None, :]).clamp(min=0)
    # Looked up in a vector of all distances; but fractions have none, and how long it is a GPU would be waited for.
    unknown = gap_BQK.is_cuda or gap_BQK.is_meta or torch.compiler.is_compiling()
    if gap_BQK.is_floating_point() or unknown:
        bias_HN = scheme.distance_bias(gap_BQK.flatten())
        if bias_HN is not None:
            return bias_HN.unflatten(1, gap_BQK.shape).transpose(0, 1)
    else:
        bias_HN = scheme.distance_bias(torch.arange(int(gap_BQK.max()) + 1, device=pos_BQ.device))
        if bias_HN is not None:
            return bias_HN[:, gap_BQK].transpose(0, 1)
    return scheme.bias(pos_BQ, pos_BK)


def exact_type(x: Tensor) -> torch.dtype:
    """What positions and angles are computed in for activations like `x`: float64 for float64, otherwise float32."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32
