"""The flash attention of a GPU, behind PyTorch's scaled_dot_product_attention.

PyTorch has FlashAttention-2. From 2.11 on it takes FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608) or 4 in its
place, if their packages are installed: flash_attn_interface, flash_attn.cute. Attention with a bias or a window is
computed otherwise (posexp/attention).
Shape suffixes: B batch, H heads, T tokens, C channels of a head.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import attention

OWN = "FA2"  # that of PyTorch
FASTEST = {9: ("FA3", "FA4"), 10: ("FA4",)}  # by major compute capability, the fastest first
ERROR = 0.02  # largest difference from PyTorch's own, as a share of the largest number: bfloat16 rounds to 0.4 %


def activate(device: torch.device, channels: int) -> None:
    """Activate the fastest flash attention for heads of `channels`. On a CPU nothing happens.

    One that is not installed, fails for such heads or differs from PyTorch's own is skipped. Later calls are cheap.
    """
    if device.type != "cuda" or torch.version.hip or not hasattr(attention, "activate_flash_attention_impl"):
        return
    chosen = choose(device, channels)
    if chosen != active(device):
        restore()
        if chosen != OWN:
            attention.activate_flash_attention_impl(chosen)


def active(device: torch.device) -> str | None:
    """Return the name of the active flash attention, None on a CPU."""
    if device.type != "cuda":
        return None
    current = getattr(attention, "current_flash_attention_impl", lambda: None)()
    return current or OWN


@functools.cache
def choose(device: torch.device, channels: int) -> str:
    """Return the first of FASTEST whose outputs and gradients are those of PyTorch's own."""
    restore()
    wanted = sample(device, channels)
    for name in FASTEST.get(torch.cuda.get_device_capability(device)[0], ()):
        try:
            attention.activate_flash_attention_impl(name)
            if all(map(near, sample(device, channels), wanted)):
                return name
        except Exception:  # packages raise any error
            pass
        restore()
    return OWN


def restore() -> None:
    if attention.current_flash_attention_impl():  # it warns otherwise
        attention.restore_flash_attention_impl()


def sample(device: torch.device, channels: int) -> list[Tensor]:
    """Return the output and the gradients of causal attention between random bfloat16 numbers."""
    draw = torch.Generator().manual_seed(0)
    qkv = [torch.randn(1, 2, 256, channels, generator=draw).to(device, torch.bfloat16) for _ in range(3)]
    with torch.enable_grad():
        q_BHTC, k_BHTC, v_BHTC = (part.requires_grad_() for part in qkv)
        out_BHTC = F.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=True)
        return [out_BHTC.detach(), *torch.autograd.grad(out_BHTC.square().sum(), qkv)]


def near(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= ERROR * wanted.abs().max())
