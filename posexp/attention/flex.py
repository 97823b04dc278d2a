"""FlexAttention on a GPU: a bias is looked up by distance inside the kernel, a window is blocks that are skipped.

Dong et al. 2024, arXiv 2412.05496. Compiled once per shape. Shape suffixes: B batch, T tokens, H heads, C channels of
a head, N distances, Q blocks of queries, K blocks of keys, S copies.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from posexp.errors import Misuse
from posexp.ops.sdpa import HALF
from posexp.windows import Window

BLOCK = 128  # tokens of a block, the kernel's own default
NARROWEST = 16  # channels of queries, keys and values that the kernel takes at least
SHAPES = 256  # that may be compiled in one process: batch sizes times lengths; PyTorch gives up after 8
COPIES = 64  # of a learned bias, see `spread`
# What is looked up goes through shared memory like keys and values, in as many stages as they; with PyTorch's own
# choices it does not fit there (H200, bfloat16, heads of 64 channels: 240 of 227 KiB). The first is as fast as no bias.
NARROW_HALF = {"fwd_BLOCK_M": 128, "fwd_BLOCK_N": 64, "fwd_num_stages": 3, "bwd_num_stages": 1}
ONE_STAGE = {"num_stages": 1}


def serves(device: torch.device, head_dim: int) -> bool:
    """Whether this path is the fastest there for heads of `head_dim` channels (values; a scheme may widen queries)."""
    return device.type == "cuda" and head_dim >= NARROWEST


def attend(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, bias_HN: Tensor | None, window: Window, scale: float
) -> Tensor:
    """[B, H, T, C]. Logits and bias are float32 inside the kernel, whatever the queries are.

    Raises Misuse where a gradient is asked for on a CPU, where PyTorch has none.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q_BHTC, k_BHTC, v_BHTC)):
        check_gradient(q_BHTC.device)
    listed_once = block_mask.__wrapped__ if torch.compiler.is_compiling() else block_mask  # a graph keeps no cache
    mask = listed_once(window, q_BHTC.shape[2], q_BHTC.device)
    options = None
    if bias_HN is not None and q_BHTC.is_cuda:
        options = NARROW_HALF if q_BHTC.dtype in HALF and q_BHTC.shape[-1] <= 64 else ONE_STAGE
    with torch.autocast(q_BHTC.device.type, enabled=False):
        added = looked_up(bias_HN)
        return kernel()(q_BHTC, k_BHTC, v_BHTC, score_mod=added, block_mask=mask, scale=scale, kernel_options=options)


def check_gradient(device: torch.device) -> None:
    """Raises Misuse where PyTorch has no gradient of it."""
    if device.type == "cpu":
        raise Misuse("attention=flex: FlexAttention cannot train on a CPU; leave attention out")


def kernel() -> Callable[..., Tensor]:
    """Inside a model that is compiled whole the kernel is compiled with it."""
    plain: Any = flex_attention
    return plain if torch.compiler.is_compiling() else compiled()


@functools.cache
def compiled() -> Any:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=False)


def looked_up(bias_HN: Tensor | None) -> Callable[..., Tensor] | None:
    """The score modification that adds a bias by distance."""
    if bias_HN is None:
        return None
    if bias_HN.requires_grad and torch.is_grad_enabled():
        return spread(bias_HN)
    vector_HN = bias_HN.float().contiguous()

    def add(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + vector_HN[h, (query - key).clamp(min=0)]  # blocks on the diagonal hold keys in the future

    return add


def spread(bias_HN: Tensor) -> Callable[..., Tensor]:
    """The same of a learned bias, each block of queries looking into one of COPIES.

    All logits of a distance add their gradient to one place, one after the other; with as many places as there are
    copies a step of attention takes 1.6 instead of 25 ms (64 sequences of 512 tokens, 8 heads, H200).
    """
    copies_SHN = bias_HN.float().expand(COPIES, -1, -1).contiguous()
    blocks = -(-bias_HN.shape[1] // BLOCK)

    def add(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + copies_SHN[(b * blocks + query // BLOCK) % COPIES, h, (query - key).clamp(min=0)]

    return add


@functools.lru_cache(maxsize=16)  # all layers and batches of a length share it
def block_mask(window: Window, T: int, device: torch.device) -> BlockMask:
    """Which blocks of keys each block of queries sees in full, and which in part, told from the window's edges.

    (PyTorch's create_block_mask would find out from a [T, T] matrix.)
    """
    first_Q = torch.arange(0, T, BLOCK, device=device)
    last_Q = (first_Q + BLOCK).clamp(max=T) - 1
    first_K, last_K = first_Q, last_Q
    earliest_T = window.earliest(torch.arange(T, device=device))
    low_Q1, high_Q1 = earliest_T[first_Q][:, None], earliest_T[last_Q][:, None]
    seen_QK = (first_K <= last_Q[:, None]) & ((last_K >= low_Q1) | (first_K < window.sinks))
    whole_K = last_K - first_K == BLOCK - 1  # what lies past the end must be masked
    full_QK = whole_K & (last_K <= first_Q[:, None]) & ((first_K >= high_Q1) | (last_K < window.sinks))
    full_QK &= (last_Q - first_Q == BLOCK - 1)[:, None]
    sinks = window.sinks

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((key >= earliest_T[query]) | (key < sinks))

    return BlockMask.from_kv_blocks(
        *listed(seen_QK & ~full_QK), *listed(full_QK), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(T, T)
    )


def listed(chosen_QK: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, [1, 1, Q], and which, [1, 1, Q, K], those first."""
    order_QK = chosen_QK.int().argsort(dim=1, descending=True, stable=True).int()
    return chosen_QK.sum(1).int()[None, None], order_QK[None, None]
