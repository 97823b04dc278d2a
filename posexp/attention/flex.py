"""FlexAttention on a GPU, with a bias looked up by distance inside the kernel, and hidden blocks skipped.

Dong et al. 2024, arXiv 2412.05496. The kernel is compiled once per shape.
Shape suffixes: B batch, T tokens, H heads, C channels of a head, N distances, Q blocks of queries, K blocks of keys,
S copies.
"""

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from posexp.dims import Dims
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
# FlashAttention-4 with the bias inside, of the package flash-attn-4. PyTorch calls it experimental.
FLEX, FLASH, FLASH_OPTIONS = "flex", "flex flash", {"BACKEND": "FLASH"}
FLASH_ERROR = 0.02  # largest error of a probe, as a share of the largest number: bfloat16 rounds to 0.4 %


def serves(device: torch.device, head_dim: int) -> bool:
    """Return whether `flex` is the fastest path on `device` for values of `head_dim` channels."""
    return device.type == "cuda" and head_dim >= MIN_CHANNELS


def path(device: torch.device, channels: int, window: Window) -> str:
    """Return FLEX or FLASH, as rows record it; with the reason, if flash attention is installed but wrong.

    FLASH serves evaluation under autocast alone: it has no gradient for a bias, and no float32. The first call on a GPU
    that has it computes a small example.
    """
    evaluates = torch.is_autocast_enabled(device.type) and not torch.is_grad_enabled()
    if not evaluates or not window.full or torch.compiler.is_compiling() or not has_flash(device):
        return FLEX
    fault = flash_fault(device, channels)
    return f"{FLEX} (flash: {fault})" if fault else FLASH


@functools.cache
def has_flash(device: torch.device) -> bool:
    return device.type == "cuda" and find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None


@functools.cache
def flash_fault(device: torch.device, channels: int) -> str:
    """Return why flash attention cannot serve heads of `channels`, from a small input with a bias; "" if it can."""
    draw, T = torch.Generator().manual_seed(0), 300  # two blocks and a part of one
    q, k, v = (torch.randn(1, 2, T, channels, generator=draw).to(device, torch.bfloat16) for _ in range(3))
    window, scale, index_T = Window(Dims(2 * channels, 2, 1, T)), channels**-0.5, torch.arange(T, device=device)
    gap_TT, slopes_H = index_T[:, None] - index_T, torch.tensor([0.5, 0.01], device=device)
    drawn_HN = torch.randn(2, T, generator=draw).to(device)
    try:
        for bias_HN, slopes in ((drawn_HN, None), (-slopes_H[:, None] * index_T, slopes_H)):
            with torch.autocast(device.type, enabled=False):
                logits = q.float() @ k.float().mT * scale + bias_HN[:, gap_TT.clamp(min=0)]
                wanted = logits.masked_fill(gap_TT < 0, -torch.inf).softmax(-1) @ v.float()
            found = attend(q, k, v, bias_HN, window, scale, slopes, flash=True)
            share = float((found - wanted).abs().max() / wanted.abs().max())
            if not share <= FLASH_ERROR:
                return f"error {share:.2g}"
    except Exception as error:  # compilers and kernels raise any error
        return f"{type(error).__name__} {error}".splitlines()[0][:100]
    return ""


def attend(
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    bias_HN: Tensor | None,
    window: Window,
    scale: float,
    slopes_H: Tensor | None = None,
    flash: bool = False,
) -> Tensor:
    """Return [B, H, T, C]. Logits and bias are float32 inside the kernel, whatever the dtype of queries.

    With `slopes_H`, the bias is -slope * distance, and computed instead of looked up. `flash` takes FlashAttention, if
    dtype and widths allow. Raises Misuse if a gradient is required on a CPU.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q_BHTC, k_BHTC, v_BHTC)):
        check_gradient(q_BHTC.device)
    listed_once = block_mask.__wrapped__ if torch.compiler.is_compiling() else block_mask  # no cache inside a graph
    mask = listed_once(window, q_BHTC.shape[2], q_BHTC.device)
    if window.head_sizes is not None:  # the block mask is the same for all heads
        zeros_1N = torch.zeros(1, q_BHTC.shape[2], device=q_BHTC.device)
        bias_HN, slopes_H = window.hide(zeros_1N if bias_HN is None else bias_HN), None
    half = q_BHTC.dtype in HALF
    options: dict[str, Any] | None = None
    if flash and half and q_BHTC.shape == k_BHTC.shape == v_BHTC.shape:
        options = FLASH_OPTIONS
    elif bias_HN is not None and q_BHTC.is_cuda:
        options = NARROW_HALF if half and q_BHTC.shape[-1] <= 64 else ONE_STAGE
    with torch.autocast(q_BHTC.device.type, enabled=False):
        learned = bias_HN is not None and bias_HN.requires_grad and torch.is_grad_enabled()
        added = looked_up(bias_HN) if slopes_H is None or learned else computed(slopes_H)
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
    vector_HN = bias_HN.detach().float().contiguous()

    def add(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + vector_HN[h, (query - key).clamp(min=0)]  # blocks on the diagonal contain keys in the future

    return add


def computed(slopes_H: Tensor) -> Callable[..., Tensor]:
    """Return the score modification that adds -slope * distance. Keys in the future are masked."""
    slopes_H = slopes_H.detach()

    def add(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes_H[h] * (query - key)

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
