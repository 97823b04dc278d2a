"""Temperatures: a factor on the logits of each query that grows with the logarithm of the tokens before it.

A temperature combines with any scheme and is trained in. The factor multiplies the rotated query, so that every path of
attention serves. It depends on n, the number of tokens of the input up to the query and with it, whatever their
positions and whatever a window hides.
Shape suffixes: B batch, T tokens, Q query tokens of a block, K keys that it sees, D width of the residual stream,
L layers, H heads, C channels of a head, N distances.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from posexp.config.components import from_node, options_of
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.ops.sdpa import biased
from posexp.schemes import Scheme, exact_type
from posexp.schemes.per_layer import Block, BlockwiseAttention, recomputed
from posexp.schemes.wrapper import Wrapper
from posexp.windows import Window


class Temperature(Wrapper):
    """A factor of 1, and the base class of other temperatures, around the scheme of the run.

    A subclass takes `dims` first and then its options, typed and without defaults. The defaults are in
    configs/temperature/<name>.yaml. Without `everywhere`, the factor acts in blocks alone whose scheme reads no
    positions. In CoPE, DAPE and stick-breaking attention it also reaches what they compute from logits.
    """

    index = 0  # of the block

    def __init__(self, dims: Dims, everywhere: bool = True):
        super().__init__(dims, Scheme(dims))
        self.everywhere = everywhere

    def layer(self, index: int) -> Scheme:
        part = self.inner.layer(index)
        if part.reads_positions and not self.everywhere:
            return part
        twin = self.around(part)
        assert isinstance(twin, Temperature)  # for the type checker
        twin.index = index
        return twin

    def factor(self, n_T: Tensor) -> Tensor:
        """Return the factors of queries that have n = 1, 2, … tokens (float), [T] or [H, T]."""
        return torch.ones_like(n_T)

    def factors(self, x_BHTC: Tensor) -> Tensor:
        """Return `factor` for all tokens of an input, [T or H, T], float32 or wider."""
        return self.factor(torch.arange(1, x_BHTC.shape[-2] + 1, device=x_BHTC.device, dtype=exact_type(x_BHTC)))

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        q_BHTC, k_BHTC = self.inner.rotate(q_BHTC, k_BHTC, pos_BT)
        return (q_BHTC * self.factors(q_BHTC)[..., None]).type_as(q_BHTC), k_BHTC


class Floored(Temperature):
    """A temperature that is 1 up to `floor` training lengths, and grows by `rate` for each factor of e beyond."""

    def __init__(self, dims: Dims, rate: float, floor: float, everywhere: bool):
        super().__init__(dims, everywhere)
        if not floor > 0:
            raise Misuse(f"temperature.floor={floor:g} must be above 0, a share of train.length")
        self.rate = rate
        self.floor = max(1, round(floor * dims.train_length))  # tokens

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}, from={self.floor}"


class Llama4(Floored):
    """1 + rate ln(1 + ⌊n / floor⌋). Llama 4; huggingface/transformers, models/llama4."""

    def factor(self, n_T: Tensor) -> Tensor:
        return 1 + self.rate * (n_T / self.floor).floor().log1p()


class Ministral(Floored):
    """1 + rate ln(1 + ⌊(n - 1) / floor⌋). Ministral 3; huggingface/transformers, models/ministral3."""

    def factor(self, n_T: Tensor) -> Tensor:
        return 1 + self.rate * ((n_T - 1) / self.floor).floor().log1p()


class LogN(Temperature):
    """max(1, ln n / ln floor). Su 2021, kexue.fm/archives/8823; Chiang and Cholak 2022, arXiv 2202.12172, 5.3."""

    def __init__(self, dims: Dims, floor: float, everywhere: bool):
        super().__init__(dims, everywhere)
        self.floor = round(floor * dims.train_length)  # tokens
        if self.floor < 2:
            raise Misuse(f"temperature.floor={floor:g} of train.length={dims.train_length} must be at least 2 tokens")

    def factor(self, n_T: Tensor) -> Tensor:
        return (n_T.log() / math.log(self.floor)).clamp(min=1)

    def extra_repr(self) -> str:
        return f"from={self.floor}"


class SSMax(Temperature):
    """s ln n, with a learned s for every block and head. Nakanishi 2025, arXiv 2501.19399, equation 2.

    `init` null starts s at 1 / ln train_length, so that the factor is 1 for the last token of a training sequence.
    """

    def __init__(self, dims: Dims, init: float | None, everywhere: bool):
        super().__init__(dims, everywhere)
        start = 1 / math.log(max(2, dims.train_length)) if init is None else init
        self.s_LH = nn.Parameter(torch.full((dims.n_layer, dims.n_head), start))

    def factor(self, n_T: Tensor) -> Tensor:
        return self.s_LH[self.index, :, None] * n_T.log()


class Inkling(Floored, BlockwiseAttention):
    """1 + rate max(0, ln(n / floor)), on the bias too. Thinking Machines 2026; transformers, models/inkling.

    The bias is that of `distance_bias` or `bias`, or of a scheme with `linear_bias`. Of other schemes that read content
    the products of queries and keys alone get the factor.
    """

    def factor(self, n_T: Tensor) -> Tensor:
        return 1 + self.rate * (n_T / self.floor).log().clamp(min=0)

    @property
    def biased(self) -> bool:
        return not self.inner.acts("attend") and any(self.inner.acts(hook) for hook in ("distance_bias", "bias"))

    def acts(self, hook: str) -> bool:
        return super().acts(hook) if hook != "attend" else self.biased or self.inner.acts("attend")

    def attend(  # type: ignore[override]
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor | None:
        if self.biased:
            return BlockwiseAttention.attend(self, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)
        if self.inner.linear_bias:
            x_BTD = (x_BTD * self.factors(x_BTD)[:, None]).type_as(x_BTD)
        return self.inner.attend(q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        index_T, factor_T = torch.arange(x_BTD.shape[1], device=x_BTD.device), self.factors(x_BTD)
        bias_HN = self.distance_bias(index_T)  # of distances in tokens, as on the other paths

        def mixed(block: Block) -> Tensor:
            gap_QK = (index_T[block.rows, None] - index_T[block.keys]).clamp(min=0)
            if bias_HN is not None:
                bias_BHQK: Tensor | None = bias_HN[None, :, gap_QK]
            else:
                bias_BHQK = self.bias(pos_BT[:, block.rows], pos_BT[:, block.keys])
            assert bias_BHQK is not None
            bias_BHQK = block.hide(bias_BHQK * factor_T[block.rows, None])
            return biased(block.q, block.k, block.v, bias_BHQK, self.dims.head_dim**-0.5)

        for block in blocks:
            yield recomputed(mixed, block)


def build_temperature(name: str, scheme: Scheme, **options: Any) -> Scheme:
    """Return `scheme` with the temperature of configs/temperature/`name`.yaml, and `options` over its defaults."""
    return from_config(options_of("temperature", name, options), scheme)


def from_config(node: dict[str, Any] | None, scheme: Scheme) -> Scheme:
    """Return `scheme` with the temperature that a config section describes, and `scheme` itself for None.

    Raises Misuse as schemes do, and if the temperature would act in no block.
    """
    if node is None:
        return scheme
    found = from_node("temperature", Temperature, node, scheme.dims)
    found.inner = scheme
    if not any(isinstance(found.layer(index), Temperature) for index in range(scheme.dims.n_layer)):
        raise Misuse(
            f"temperature.everywhere=false acts in blocks without positions, and {scheme.fingerprint()} has none in "
            f"the {scheme.dims.n_layer} with attention: set temperature.everywhere=true, or a smaller scheme.every of "
            "alternate"
        )
    return found
