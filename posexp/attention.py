"""Causal attention with whatever a scheme adds to it, in memory linear in the length of the input.

Shape suffixes: B batch, T tokens, Q query tokens of a block, K key tokens, H heads, C channels of a head,
D width of the residual stream, N distances.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from posexp.schemes import Dims, Scheme

QUERY_BLOCK = 256  # queries that see a bias at a time: from 64 to 512 the speed is the same, the memory is not


def attention(scheme: Scheme, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor) -> Tensor:
    """[B, H, T, C]: every token's mixture of the values at and before it; logits are scaled by C^-0.5."""
    _, compute = choose_path(scheme, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD)
    return compute()


def kernel_path(scheme: Scheme, dims: Dims) -> str:
    """The name of the path that `attention` takes for `scheme` (of each block, if they differ), as rows record it."""
    device = next(iter([*scheme.parameters(), *scheme.buffers()]), torch.empty(0)).device
    qkv_BHTC = torch.zeros(1, dims.n_head, 2, dims.head_dim, device=device)
    x_BTD = qkv_BHTC.new_zeros(1, 2, dims.d_model)
    with torch.no_grad():
        pos_BT = scheme.positions(1, 2, device)
        paths = [
            choose_path(scheme.layer(index), qkv_BHTC, qkv_BHTC, qkv_BHTC, pos_BT, x_BTD)[0]
            for index in range(dims.n_layer)
        ]
    return ", ".join(dict.fromkeys(paths))


def choose_path(
    scheme: Scheme, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor
) -> tuple[str, Callable[[], Tensor]]:
    """The first path whose hook the scheme has: its own attention, a bias by distance, a general bias, none."""
    T, device = q_BHTC.shape[2], q_BHTC.device
    own = scheme.attend(q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD)
    if own is not None:
        return "scheme", lambda: own
    with torch.autocast(device.type, enabled=False):
        bias_HN = scheme.distance_bias(torch.arange(T, device=device))
        if bias_HN is not None:
            return "sdpa distance view", lambda: by_distance(q_BHTC, k_BHTC, v_BHTC, bias_HN)
        if scheme.bias(pos_BT[:, :1], pos_BT[:, :1]) is not None:
            return "sdpa bias blocks", lambda: by_position(q_BHTC, k_BHTC, v_BHTC, scheme, pos_BT)
    return "sdpa causal", lambda: F.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=True)


def by_distance(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, bias_HN: Tensor) -> Tensor:
    """Attention with a bias that depends on distance alone; no [T, T] matrix is ever written.

    With the queries in reverse order, logit (i, j) has distance T-1 - (i + j): along rows and along
    columns the bias is one vector read from i + j on, so a block of it is a view with strides (1, 1).
    """
    T = q_BHTC.shape[2]
    laid_out = torch.full((bias_HN.shape[0], 2 * T - 1), -torch.inf, device=bias_HN.device)  # -inf: keys in the future
    laid_out = torch.cat((bias_HN.float().flip(1), laid_out[:, T:]), dim=1)
    reversed_BHTC = q_BHTC.flip(2)
    out = []
    for first in range(0, T, QUERY_BLOCK):
        last = min(first + QUERY_BLOCK, T)
        keys = T - first  # the block's latest query sees this many
        size, stride = (1, len(laid_out), last - first, keys), (0, laid_out.stride(0), 1, 1)
        bias_1HQK = laid_out.as_strided(size, stride, first)
        out.append(biased(reversed_BHTC[:, :, first:last], k_BHTC[:, :, :keys], v_BHTC[:, :, :keys], bias_1HQK))
    return torch.cat(out, dim=2).flip(2)


def by_position(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, scheme: Scheme, pos_BT: Tensor) -> Tensor:
    """Attention with a bias that depends on both positions, built for one block of queries at a time."""
    T, device = q_BHTC.shape[2], q_BHTC.device
    out = []
    for first in range(0, T, QUERY_BLOCK):
        last = min(first + QUERY_BLOCK, T)
        with torch.autocast(device.type, enabled=False):
            bias_BHQK = scheme.bias(pos_BT[:, first:last], pos_BT[:, :last])
        assert bias_BHQK is not None
        future_QK = torch.arange(first, last, device=device)[:, None] < torch.arange(last, device=device)
        bias_BHQK = bias_BHQK.float().masked_fill(future_QK, -torch.inf)
        out.append(biased(q_BHTC[:, :, first:last], k_BHTC[:, :, :last], v_BHTC[:, :, :last], bias_BHQK))
    return torch.cat(out, dim=2)


def biased(q_BHQC: Tensor, k_BHKC: Tensor, v_BHKC: Tensor, bias_BHQK: Tensor) -> Tensor:
    """Softmax attention with a float32 bias, which autocast must not round: far distances would become equal."""
    kind = q_BHQC.dtype
    with torch.autocast(q_BHQC.device.type, enabled=False):
        if q_BHQC.is_cuda:  # its kernels take a bias only in the queries' own type, and laid out in full
            q_BHQC, k_BHKC, v_BHKC = q_BHQC.float(), k_BHKC.float(), v_BHKC.float()
            bias_BHQK = bias_BHQK.contiguous()
        elif kind not in (torch.bfloat16, torch.float16):
            bias_BHQK = bias_BHQK.to(kind)
        return F.scaled_dot_product_attention(q_BHQC, k_BHKC, v_BHKC, attn_mask=bias_BHQK).to(kind)
