"""What a positional scheme is: one small class whose hooks say where it acts.

Shape suffixes: B batch, T tokens of the sequence, Q query tokens, K key tokens, D width of the
residual stream, H heads, C channels of a head, N distances.
"""

import inspect
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from posexp.config import config_dir
from posexp.errors import Misuse

# Of token embeddings, and of a table that a scheme adds to them. The decoder divides by it on the way in: tokens
# enter at unit scale.
EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class Dims:
    """Sizes of the decoder a scheme is built for; `train_length` in tokens."""

    d_model: int
    n_head: int
    n_layer: int
    train_length: int

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_head


class Scheme(nn.Module):
    """One way of telling a decoder where its tokens are. A hook left alone does nothing.

    A subclass takes `dims` first and then its hyper-parameters, typed and without defaults: those
    live in configs/scheme/<name>.yaml. Hooks are functions of positions; none keeps a table between
    calls. Positions, angles, distances and biases are float32 or int64 whatever autocast does.
    """

    max_length: int | None = None  # longest input the scheme is defined for
    relative = False  # logits unchanged when all positions shift together
    reads_positions = True  # False: order comes from the causal mask alone
    prefix_stable = True  # False: the output at a position depends on the whole input's length

    def __init__(self, dims: Dims):
        super().__init__()
        self.dims = dims

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
        """Queries and keys as attention compares them, in every block."""
        return q_BHTC, k_BHTC

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        """[H, N] float32 added to the scaled logits of keys `gap_N` (int64, 0 and up) tokens back."""
        return None

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        """[B or 1, H, Q, K] float32 added to the scaled logits, where distance alone does not decide."""
        return None

    def attend(self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor) -> Tensor | None:
        """The whole of causal attention, [B, H, T, C], for schemes that read content (`x_BTD`: the block's input)."""
        return None

    def fingerprint(self) -> str:
        """One line that describes what was really built; recorded with every run."""
        return f"{type(self).__name__}({self.extra_repr()})"


def build(name: str, dims: Dims, **hyper: Any) -> Scheme:
    """The scheme of configs/scheme/`name`.yaml with `hyper` in place of its defaults.

    Raises Misuse for an unknown name or hyper-parameter, or a value of the wrong type.
    """
    folder = config_dir() / "scheme"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise Misuse(f"no scheme {name!r}; there are {known}")
    node = read_options(path)
    if unknown := hyper.keys() - node.keys():
        options = ", ".join(key for key in node if key != "_target_") or "(it has none)"
        raise Misuse(f"scheme {name} has no option {sorted(unknown)[0]!r}; its options: {options}")
    return from_config({**node, **hyper}, dims)


def read_options(path: Path) -> dict[str, Any]:
    """What a scheme's YAML holds: `_target_` and its hyper-parameters."""
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def from_config(node: dict[str, Any], dims: Dims) -> Scheme:
    """The scheme that a config section describes: `_target_` and its hyper-parameters.

    Raises Misuse if the class cannot be found, an option is unknown, missing or of the wrong type,
    or the scheme refuses `dims`.
    """
    from hydra.utils import get_class

    target = node.get("_target_")
    if not target:
        raise Misuse("the scheme's config has no _target_: name its class there")
    try:
        scheme_class = get_class(target)
    except Exception as error:  # Hydra wraps whatever importing a user's module raises
        raise Misuse(f"cannot import the scheme {target}: {error.__cause__ or error}") from error
    if not issubclass(scheme_class, Scheme):
        raise Misuse(f"{target} is not a posexp.schemes.Scheme")
    parameters = list(inspect.signature(scheme_class.__init__).parameters.values())[2:]  # after self, dims
    options = make_dataclass("Options", [(p.name, p.annotation) for p in parameters])
    values = {key: value for key, value in node.items() if key != "_target_"}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(options), values)
        typed = OmegaConf.to_container(merged, throw_on_missing=True)
    except OmegaConfBaseException as error:
        option = f"{error.full_key}: " if error.full_key else ""
        raise Misuse(f"scheme {target}: {option}{str(error).splitlines()[0]}") from error
    assert isinstance(typed, dict)
    return scheme_class(dims, **{str(key): value for key, value in typed.items()})
