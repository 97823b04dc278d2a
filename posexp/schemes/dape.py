"""A bias adapted to the content (DAPE). Zheng et al. 2024, arXiv 2405.14722, equation 3; V2 is arXiv 2410.04798.

Formula: z(m, n) = A_h + B_h + mlp(A_1 .. A_H, B_1 .. B_H)[h]
    A_h = q_m·k_n / √C of head h; B_h is the bias of the inner scheme
    with a kernel above 1, both layers of the mlp are convolutions over the keys n
Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, N pairs of a query and a key, D width of the residual
stream, H heads, G twice as many (content, then bias), W width of the MLP, C channels of a head.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, bias_between, inner_scheme
from posexp.schemes.per_layer import Block, BlockwiseAttention, pieces, recomputed
from posexp.schemes.wrapper import Wrapper
from posexp.windows import at_least


class HeadMixer(nn.Module):
    """The MLP of one block, from the logits and biases of all heads to a second bias for each head."""

    def __init__(self, n_head: int, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * n_head, width), nn.LeakyReLU(inplace=True), nn.Linear(width, n_head))

    def forward(self, both_BGQK: Tensor, block: Block) -> Tensor:
        """Return the second bias, [B, H, Q, K]."""
        first, leaky, last = self.mlp
        assert isinstance(last, nn.Linear)  # for the type checker
        both_GN = both_BGQK.transpose(0, 1).flatten(1)
        # weights from the left keep heads in place; a linear layer would copy every pair to move heads last
        mixed = [
            torch.addmm(last.bias[:, None], last.weight, leaky(first(some_GN.T)).T) for some_GN in pieces(both_GN, 1)
        ]
        B, _, Q, K = both_BGQK.shape
        return torch.cat(mixed, dim=1).unflatten(1, (B, Q, K)).transpose(0, 1)


class KeyMixer(nn.Module):
    """The two convolutions over keys of one block (DAPE V2). Logits of keys that a query does not see count as 0."""

    def __init__(self, n_head: int, width: int, kernel: int):
        super().__init__()
        self.reach = kernel // 2
        first, last = nn.Conv2d(2 * n_head, width, (1, kernel)), nn.Conv2d(width, n_head, (1, kernel))
        self.mlp = nn.Sequential(first, nn.LeakyReLU(inplace=True), last)

    def forward(self, both_BGQK: Tensor, block: Block) -> Tensor:
        """Return the second bias, [B, H, Q, K]."""
        if block.visible.ndim == 3:  # a window for each head: its bias reads no key that this head does not see
            alone = (block._replace(visible=visible_QK) for visible_QK in block.visible)
            return torch.stack([self(both_BGQK.clone(), one)[:, head] for head, one in enumerate(alone)], dim=1)
        first, leaky, last = self.mlp
        around_BGQX = F.pad(block.hide(both_BGQK, 0.0), (2 * self.reach, 2 * self.reach))
        hidden_BWQX = leaky(first(around_BGQX))
        # The hidden layer is 0 before the first key of the input, but not after the last, where keys may follow.
        outside = max(0, self.reach - block.keys.start)
        return last(F.pad(hidden_BWQX[..., outside:], (outside, 0)))


class AdaptedBias(BlockwiseAttention, Wrapper):
    """One block of DAPE: logits A + B + MLP([A; B]), where A is q.k / sqrt(C) and B the bias of `inner`."""

    def __init__(self, dims: Dims, inner: Scheme, mixer: HeadMixer | KeyMixer):
        super().__init__(dims, inner)
        self.mixer = mixer

    def distance_bias(self, gap_N: Tensor) -> Tensor | None:
        return None

    def bias(self, pos_BQ: Tensor, pos_BK: Tensor) -> Tensor | None:
        return None

    def mixtures(self, blocks: Iterator[Block], pos_BT: Tensor, x_BTD: Tensor) -> Iterator[Tensor]:
        for block in blocks:
            yield recomputed(self.adapted, block, pos_BT)

    def adapted(self, block: Block, pos_BT: Tensor) -> Tensor:
        content_BHQK = block.q * self.dims.head_dim**-0.5 @ block.k.mT
        bias_BHQK = bias_between(self.inner, pos_BT[:, block.rows], pos_BT[:, block.keys])
        assert bias_BHQK is not None
        bias_BHQK = bias_BHQK.to(content_BHQK.dtype).expand_as(content_BHQK)
        more_BHQK = self.mixer(torch.cat((content_BHQK, bias_BHQK), dim=1), block)
        return block.hide((content_BHQK + bias_BHQK).add_(more_BHQK)).softmax(-1) @ block.v


class Dape(Wrapper):
    """The bias of another scheme, adapted in every block by an MLP of `width` over the logits and biases of all heads.

    An odd `kernel` above 1 makes it DAPE V2, whose MLP also reads the logits of neighbouring keys, but no key that the
    query does not see. In the authors' code (chuanyang-Zheng/DAPE, Kerple_DAPEV2) the hidden layer is 0 after the last
    key of an input too, so that the output at the last kernel // 2 tokens depends on whether more tokens follow.

    Raises Misuse if `inner` adds no bias in some block, or for an even kernel.
    """

    def __init__(self, dims: Dims, width: int, kernel: int = 1, *, inner: Any):
        super().__init__(dims, inner_scheme(inner, dims))
        self.width = at_least("scheme.width", width, 1)
        self.kernel = at_least("scheme.kernel", kernel, 1)
        if kernel % 2 == 0:
            raise Misuse(f"scheme.kernel={kernel} must be odd, to be centred on a key")
        sizes = (dims.n_head, width)
        self.layers = nn.ModuleList(
            HeadMixer(*sizes) if kernel == 1 else KeyMixer(*sizes, kernel) for _ in range(dims.n_layer)
        )
        pos_11 = torch.zeros(1, 1, dtype=torch.long)
        with torch.no_grad():
            if any(bias_between(self.inner.layer(i), pos_11, pos_11) is None for i in range(dims.n_layer)):
                raise Misuse(
                    f"scheme.inner={self.inner.fingerprint()} adds no bias that DAPE could adapt: "
                    "choose a scheme that adds one, such as alibi"
                )

    def layer(self, index: int) -> Scheme:
        return AdaptedBias(self.dims, self.inner.layer(index), self.layers[index])  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"width={self.width}" + (f", kernel={self.kernel}" if self.kernel > 1 else "")
