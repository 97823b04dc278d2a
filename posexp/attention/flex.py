"""FlexAttention on a GPU, with a bias looked up by distance inside the kernel, and hidden blocks skipped.

Dong et al. 2024, arXiv 2412.05496. The kernel is compiled once per shape.
Shape suffixes: B batch, T tokens, H heads, C channels of a head, N distances, Q blocks of queries, K blocks of keys,
S copies.
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

BLOCK = 128  # tokens of a block, the default of the kernel
MIN_CHANNELS = 16  # of queries, keys and values, for the kernel
MAX_SHAPES = 256  # compiled in one process (batch sizes times lengths); the default of PyTorch is 8
COPIES = 64  # copies of a learned bias, see `spread`
# The bias passes through shared memory in as many stages as keys and values. PyTorch's default options need too
# much of it (H200, bfloat16, heads of 64 channels: 240 of 227 KiB). NARROW_HALF is as fast as no bias.
NARROW_HALF = {"fwd_BLOCK_M": 128, "fwd_BLOCK_N": 64, "fwd_num_stages": 3, "bwd_num_stages": 1}
ONE_STAGE = {"num_stages": 1}


def serves(device: torch.device, head_dim: int) -> bool:
    """Return whether `flex` is the fastest path on `device` for values of `head_dim` channels."""
    return device.type == "cuda" and head_dim >= MIN_CHANNELS


def attend(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, bias_HN: Tensor | None, window: Window, scale: float
) -> Tensor:
    """Return [B, H, T, C]. Logits and bias are float32 inside the kernel, whatever the dtype of queries.

    Raises Misuse if a gradient is required on a CPU.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q_BHTC, k_BHTC, v_BHTC)):
        check_gradient(q_BHTC.device)
    listed_once = block_mask.__wrapped__ if torch.compiler.is_compiling() else block_mask  # no cache inside a graph
    mask = listed_once(window, q_BHTC.shape[2], q_BHTC.device)
    if window.head_sizes is not None:  # the block mask is the same for all heads
        zeros_1N = torch.zeros(1, q_BHTC.shape[2], device=q_BHTC.device)
        bias_HN = window.hide(zeros_1N if bias_HN is None else bias_HN)
    options = None
    if bias_HN is not None and q_BHTC.is_cuda:
        options = NARROW_HALF if q_BHTC.dtype in HALF and q_BHTC.shape[-1] <= 64 else ONE_STAGE
    with torch.autocast(q_BHTC.device.type, enabled=False):
        added = looked_up(bias_HN)
        return kernel()(q_BHTC, k_BHTC, v_BHTC, score_mod=added, block_mask=mask, scale=scale, kernel_options=options)


def check_gradient(device: torch.device) -> None:
    """Raise Misuse for a device on which PyTorch has no gradient of FlexAttention."""
    if device.type == "cpu":
        raise Misuse("attention=flex: FlexAttention cannot train on a CPU; omit attention")


def kernel() -> Callable[..., Tensor]:
    """Return the kernel, compiled, unless the whole model is being compiled."""
    plain: Any = flex_attention
    return plain if torch.compiler.is_compiling() else compiled()


@functools.cache
def compiled() -> Any:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(MAX_SHAPES, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=False)


def looked_up(bias_HN: Tensor | None) -> Callable[..., Tensor] | None:
    """Return the score modification that adds a bias by distance."""
    if bias_HN is None:
        return None
    if bias_HN.requires_grad and torch.is_grad_enabled():
        return spread_over_copies(bias_HN)
    vector_HN = bias_HN.float().contiguous()

    def add(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + vector_HN[h, (query - key).clamp(min=0)]  # blocks on the diagonal contain keys in the future

    return add


def spread_over_copies(bias_HN: Tensor) -> Callable[..., Tensor]:
    """Return the score modification for a learned bias, with one of COPIES for each block of queries.

    All logits of a distance add their gradient to one place in turn. Spread over COPIES places, a step of attention
    takes 1.6 instead of 25 ms (64 sequences of 512 tokens, 8 heads, H200).
    """
    copies_SHN = bias_HN.float().expand(COPIES, -1, -1).contiguous()
    blocks = -(-bias_HN.shape[1] // BLOCK)

    def add(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + copies_SHN[(b * blocks + query // BLOCK) % COPIES, h, (query - key).clamp(min=0)]

    return add


@functools.lru_cache(maxsize=16)  # shared by all layers and batches of a length
def block_mask(window: Window, T: int, device: torch.device) -> BlockMask:
    """Return the blocks of keys that each block of queries sees in full and in part, from the edges of the window.

    PyTorch's create_block_mask would write a [T, T] matrix.
    """
    first_Q = torch.arange(0, T, BLOCK, device=device)
    last_Q = (first_Q + BLOCK).clamp(max=T) - 1
    first_K, last_K = first_Q, last_Q
    earliest_T = window.earliest(torch.arange(T, device=device))
    low_Q1, high_Q1 = earliest_T[first_Q][:, None], earliest_T[last_Q][:, None]
    seen_QK = (first_K <= last_Q[:, None]) & ((last_K >= low_Q1) | (first_K < window.sinks))
    whole_K = last_K - first_K == BLOCK - 1  # places past the end must be masked
    full_QK = whole_K & (last_K <= first_Q[:, None]) & ((first_K >= high_Q1) | (last_K < window.sinks))
    full_QK &= (last_Q - first_Q == BLOCK - 1)[:, None]
    sinks = window.sinks

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((key >= earliest_T[query]) | (key < sinks))

    return BlockMask.from_kv_blocks(
        *block_lists(seen_QK & ~full_QK), *block_lists(full_QK), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(T, T)
    )


def block_lists(chosen_QK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of chosen blocks of keys, [1, 1, Q], and the indices, chosen ones first, [1, 1, Q, K]."""
    order_QK = chosen_QK.int().argsort(dim=1, descending=True, stable=True).int()
    return chosen_QK.sum(1).int()[None, None], order_QK[None, None]
