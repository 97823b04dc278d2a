"""Low precision at evaluation: weights in 8 bits, and positions in bfloat16. Nothing is trained with it.

int8 (symmetric, absolute maximum) as in Dettmers et al. 2022, arXiv 2208.07339, section 2.1, one scale for each output
channel; fp8 is e4m3 of Micikevicius et al. 2022, arXiv 2209.05433, with the same scales. Matrix products stay in the
precision of the evaluation: weights are rounded to the format and back.

Shape suffixes: B batch, T tokens, N distances, Q query tokens, K key tokens, I rotated pairs of channels.
"""

import copy
from collections.abc import Iterator
from enum import Enum
from functools import partial

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.schemes.wrapper import Wrapper
from posexp.transforms import NotApplicable, Transform
from posexp.windows import Window

FAR, STEP = 4096, 65  # positions that are tried to see what depends on rounding, and the step for hooks of pairs


class Format(Enum):
    int8 = "int8"
    fp8 = "fp8"


def round_trip(weight: Tensor, kind: Format) -> Tensor:
    """Return a weight as its 8-bit format represents it, with a scale for each output channel (each row)."""
    rows = weight.reshape(weight.shape[0], -1) if weight.ndim > 1 else weight.reshape(1, -1)
    largest = {Format.int8: 127.0, Format.fp8: torch.finfo(torch.float8_e4m3fn).max}[kind]
    scale = (rows.abs().amax(dim=1, keepdim=True) / largest).clamp(min=torch.finfo(torch.float32).tiny)
    scaled = (rows / scale).clamp(-largest, largest)
    rounded = scaled.round() if kind is Format.int8 else scaled.to(torch.float8_e4m3fn).to(rows.dtype)
    return (rounded * scale).reshape(weight.shape)


@torch.no_grad()
def quantized(module: nn.Module, kind: Format, vectors: bool) -> nn.Module:
    """Return a copy with its matrices rounded to 8 bits, and its vectors too if `vectors`."""
    twin = copy.deepcopy(module)
    for weight in twin.parameters():
        if weight.ndim > 1 or vectors:
            weight.copy_(round_trip(weight, kind))
    return twin


class LowPrecisionWeights(Transform):
    """The matrices of all blocks, and all parameters of the scheme, in `format`. Embeddings and norms stay as they are.

    A table of positions is one scale a position. The loss shows how much of a scheme survives such weights.
    """

    def __init__(self, dims: Dims, format: Format):
        super().__init__(dims)
        self.format = format
        self.blocks: tuple[nn.Module, nn.Module] | None = None  # the blocks of a model, and rounded

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        twin = quantized(scheme, self.format, vectors=True)
        assert isinstance(twin, Scheme)
        return twin, window

    def model(self, model: nn.Module) -> nn.Module:
        blocks = model.get_submodule("blocks")
        if self.blocks is None or self.blocks[0] is not blocks:
            self.blocks = blocks, quantized(blocks, self.format, vectors=False)
        twin = copy.copy(model)
        twin._modules = {**model._modules, "blocks": self.blocks[1]}
        return twin

    def describe(self, length: int) -> str:
        return f"{self.format.value} weights"


class Rounded(Wrapper):
    """A wrapper that rounds positions, distances and the angles of RoPE to bfloat16, which has 8 significant bits."""

    def positions(self, B: int, T: int, device: torch.device) -> Tensor:
        return self.coarse(self.inner.positions(B, T, device))

    def positions_of(self, tokens_BT: Tensor) -> Tensor:
        return self.coarse(self.inner.positions_of(tokens_BT))

    def coarse(self, pos_BT: Tensor) -> Tensor:
        """Return rounded positions, at most the last one of the scheme."""
        pos_BT = rounded(pos_BT)
        return pos_BT if self.max_length is None else pos_BT.clamp(max=self.max_length - 1)

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        return self.inner.distance_bias(rounded(gap_N))


def rounded(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).to(x.dtype)


class Bfloat16Positions(Transform):
    """Positions, distances and RoPE's angles in bfloat16, as code computes them that follows its weights' type.

    Whole numbers are exact up to 256; beyond, neighbours share a position. Learned parameters do not change.
    """

    tried: tuple[Scheme, bool] | None = None  # the latest scheme, and whether rounding changes it

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        if self.tried is None or self.tried[0] is not scheme:
            self.tried = scheme, reads_rounding(scheme)
        if not self.tried[1]:
            raise NotApplicable(f"{scheme.fingerprint()} computes the same from positions in bfloat16")
        return coarse_positions(scheme), window

    def describe(self, length: int) -> str:
        return "bfloat16 positions"


def coarse_positions(scheme: Scheme) -> Scheme:
    """Return a copy of the scheme with positions, distances and the angles of RoPE in bfloat16."""
    twin = copy.deepcopy(scheme)
    for part in twin.modules():
        if isinstance(part, Rope):
            part.angles = partial(rounded_angles, part)  # type: ignore[method-assign]
    return Rounded(scheme.dims, twin)


@torch.no_grad()
def reads_rounding(scheme: Scheme) -> bool:
    """Return whether a hook computes anything else from coarse positions, below FAR or the scheme's limit.

    Content, tables of short distances and positions up to 256 do not change. Parameters that are still 0 are moved.
    """
    end = min(scheme.max_length or FAR, FAR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exact = copy.deepcopy(scheme).to("cpu", torch.float32).eval()
        for weight in exact.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
        x_1TD = torch.randn(1, end, scheme.dims.d_model)
        q_1HTC = torch.randn(1, scheme.dims.n_head, end, scheme.dims.head_dim)
    return any(
        not torch.equal(before, after)
        for index in range(scheme.dims.n_layer)
        for before, after in zip(
            *(computed(each.layer(index), x_1TD, q_1HTC) for each in (exact, coarse_positions(exact))), strict=True
        )
    )


def computed(scheme: Scheme, x_1TD: Tensor, q_1HTC: Tensor) -> Iterator[Tensor]:
    """Yield what the hooks of a scheme return at positions 0 to T - 1, at every STEP-th for hooks of pairs."""
    pos_1T = torch.arange(x_1TD.shape[1])[None]
    seen_1T = scheme.coarse(pos_1T) if isinstance(scheme, Rounded) else pos_1T
    x_1SD, q_1HSC, some_1S = x_1TD[:, ::STEP], q_1HTC[:, :, ::STEP], seen_1T[:, ::STEP]
    yield scheme.embed(x_1TD, seen_1T)
    yield from scheme.rotate(q_1HTC, q_1HTC, seen_1T)
    pair = scheme.rotate(q_1HSC, q_1HSC, some_1S)
    attended = scheme.attend(*pair, q_1HSC, some_1S, x_1SD, Window(scheme.dims))
    found = scheme.distance_bias(pos_1T[0]), scheme.bias(some_1S, some_1S), attended
    yield from (each for each in found if each is not None)


def rounded_angles(rope: Rope, pos_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the angles of a scheme, [B, T, I], in bfloat16."""
    return rounded(type(rope).angles(rope, pos_BT, dtype))
