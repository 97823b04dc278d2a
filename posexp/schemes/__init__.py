"""The base class of positional schemes: one small class whose hooks decide where a scheme acts.

Shape suffixes: B batch, T tokens of the sequence, Q query tokens, K key tokens, D width of the
residual stream, H heads, C channels of a head, N distances.
"""

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from posexp.config.components import from_node, options_of
from posexp.dims import Dims
from posexp.errors import Misuse

if TYPE_CHECKING:
    from posexp.windows import Window

# The spread of token embeddings, and of a table that a scheme adds to them. The decoder divides embeddings by
# EMBEDDING_STD, so that tokens enter at unit scale.
EMBEDDING_STD = 0.02


class Scheme(nn.Module):
    """A way to give a decoder the positions of its tokens. A hook that is not overridden does nothing.

    A subclass takes `dims` first and then its hyper-parameters, typed and without defaults. The defaults are in
    configs/scheme/<name>.yaml. Hooks are functions of positions and keep no table between calls. Positions, angles,
    distances and biases are int64 or float32 whatever autocast does, and float64 where activations are. The
    promises are attributes of the class or the instance, or properties.
    """

    max_length: int | None = None  # longest input that the scheme is defined for, in tokens
    relative = False  # logits unchanged when all positions shift together
    reads_positions = True  # False: order comes from the causal mask alone
    prefix_stable = True  # False: the output at a position depends on the length of the whole input
    reads_text = False  # True: `positions_of` reads the tokens, which must be bytes (data.tokenizer=bytes)
    linear_bias = False  # True: `attend` adds a bias that is linear in the input of the block

    def __init__(self, dims: Dims):
        super().__init__()
        self.dims = dims

    def acts(self, hook: str) -> bool:
        """Return whether the named hook does anything, without calling it: whether the scheme overrides it.

        `kernel_path` depends on `acts`. A scheme whose hook sometimes does nothing overrides `acts` too.
        """
        return overrides(self, hook, Scheme)

    def layer(self, index: int) -> "Scheme":
        """Return the scheme of block `index`, for schemes with parameters or rules per layer."""
        return self

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        """Return the positions of the tokens, int64 or float32 [B or 1, T]. May sample while `self.training`."""
        return torch.arange(T, device=device)[None]

    def positions_of(self, tokens_BT: Tensor) -> Tensor:
        """Return the positions of these tokens, as the decoder calls it: those of `positions` unless `reads_text`."""
        B, T = tokens_BT.shape
        return self.positions(B, T, tokens_BT.device)

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        """Return the residual stream before the first block, from token embeddings of unit scale."""
        return x_BTD

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys as attention compares them, possibly wider than C. Logits are scaled by C^-0.5."""
        return q_BHTC, k_BHTC

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        """Return [H, N] float32, added to the scaled logits of keys `gap_N` (int64, 0 and up) positions back."""
        return None

    def distance_slopes(self, device: torch.device) -> Tensor | None:
        """Return [H] float32 if `distance_bias` is -slope * distance, which a GPU's kernel then computes itself."""
        return None

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        """Return [B or 1, H, Q, K] float32, added to the scaled logits, for a bias of more than distance."""
        return None

    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: "Window"
    ) -> Tensor | None:
        """Return the output of causal attention, [B, H, T, C], for schemes that read content.

        `x_BTD` is the input of the block. Queries and keys are those that `rotate` returned.
        `window.blocks(T, device)` yields which keys are visible to which queries.
        """
        return None

    def progress(self, share: float) -> None:
        """Follow training: called before every step with the share of training done, and with 1.0 to evaluate."""

    def fingerprint(self) -> str:
        """Return one line that describes what was built. Every run records it."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        """Return the options for `fingerprint`: by default the numbers that are kept under the names of options."""
        names = list(inspect.signature(type(self).__init__).parameters)[2:]  # after self and dims
        kept = [(name, value) for name in names if isinstance(value := vars(self).get(name), int | float)]
        return ", ".join(f"{name}={value:g}" if type(value) is float else f"{name}={value}" for name, value in kept)

    def notes(self) -> list[str]:
        """Return sentences on what limits a comparison with other schemes: constants that belong to another training
        length or number of heads, positions beyond the training length. Every run records them for reports.
        """
        return []


def slopes_of(scheme: Scheme, device: torch.device) -> Tensor | None:
    """Return what `distance_slopes` returns; None if a subclass overrides `distance_bias` alone."""
    kind = type(scheme)
    agree = owner(kind, "distance_slopes") == owner(kind, "distance_bias")
    return scheme.distance_slopes(device) if agree else None


def overrides(scheme: Scheme, hook: str, base: type[Scheme]) -> bool:
    """Whether the scheme has a hook of its own in place of that of `base`."""
    return owner(type(scheme), hook) != owner(base, hook)


def owner(kind: type[Scheme], hook: str) -> str:
    """Return the name of the class that defines the hook for `kind`."""
    return next(f"{c.__module__}.{c.__qualname__}" for c in kind.__mro__ if hook in vars(c))


# torch.compiler.assume_constant_result, without its import of torch._dynamo: under torch.compile, two reads of one
# method are two objects.
vars(owner)["_dynamo_marked_constant"] = True


def build_scheme(name: str, dims: Dims, **hyper: Any) -> Scheme:
    """Return the scheme of configs/scheme/`name`.yaml with `hyper` over its defaults. Raises as `from_config`."""
    return from_config(options_of("scheme", name, hyper), dims)


def from_config(node: dict[str, Any], dims: Dims) -> Scheme:
    """Return the scheme that a config section describes by `_target_` and options. Raises Misuse for bad ones."""
    return from_node("scheme", Scheme, node, dims)


def inner_scheme(value: Any, dims: Dims) -> Scheme:
    """Return the scheme inside another one, from a config section, a name or the scheme itself, for `dims`.

    Raises Misuse for a scheme whose positions come from the text.
    """
    if not isinstance(value, Scheme):
        value = build_scheme(value, dims) if isinstance(value, str) else from_config(value, dims)
    if value.reads_text:
        raise Misuse(f"{value.fingerprint()} cannot be inside another scheme: its positions come from the text")
    return value


def bias_between(scheme: Scheme, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
    """Return the bias between positions, by `distance_bias` or `bias`, [B or 1, H, Q, K]; None without a bias."""
    gap_BQK = (pos_BQ[:, :, None] - pos_BK[:, None, :]).clamp(min=0)
    # Biases are looked up in a vector of all distances, unless distances are fractions or on a GPU, which would have
    # to finish its work before the largest distance is known.
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
    """Return the dtype of positions and angles for activations like `x`: float64 for float64, otherwise float32."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32
