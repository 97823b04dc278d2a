"""Attention with a bias that depends on distance alone; no [T, T] matrix is ever written.

With the queries in reverse order, logit (i, j) has distance T-1 - (i + j): along rows and along columns the bias is
one vector read from i + j on, so a block of it is a view with strides (1, 1). A window that is a function of distance
is part of that vector. The gradient of a learned bias goes back to the vector the same way.

Shape suffixes: B batch, T tokens, Q query tokens of a block, K keys that it sees, H heads, C channels of a head,
N distances, S places of the vector laid out (2T - 1).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from posexp import windows
from posexp.ops.sdpa import HALF, as_wide, biased
from posexp.windows import Window

# PyTorch's CPU kernel works on 256 queries at a time for WIDE_BLOCK queries or more, and on 64 otherwise, for which a
# logit takes 1.2 times as long in float32 and 1.3 in bfloat16. With fewer keys than WIDE_KEYS, too many of so wide a
# block are in the future.
WIDE_KEYS, WIDE_BLOCK = 1536, 768
GRADIENT_BLOCK = 128  # queries whose logits the gradient of a learned bias recomputes at a time
GRADIENT_LOGITS = 2**18  # logits in memory at a time, about: a megabyte, which stays in the cache

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attend(
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    bias_HN: Tensor,
    window: Window,
    scale: float,
    last: int | None = None,
) -> Tensor:
    """Return [B, H, T, C], or [B, H, last, C] for the last tokens. The bias stays float32 whatever autocast does."""
    T, C = q_BHTC.shape[2], v_BHTC.shape[-1]
    v_BHTC = as_wide(v_BHTC, q_BHTC.shape[-1])
    laid_HS = laid_out(bias_HN, window)
    if laid_HS.requires_grad and not q_BHTC.is_cuda:
        reversed_BHTC = q_BHTC[:, :, T - (last or T) :].flip(2)
        laid_HS = laid_HS.expand(q_BHTC.shape[1], -1)
        return Learned.apply(reversed_BHTC, k_BHTC, v_BHTC, laid_HS, window, scale).flip(2)[..., :C]
    out = []
    for rows, keys, bias_HQK in blocks(laid_HS, window, count=last):
        reversed_BHQC = q_BHTC[:, :, T - rows.stop : T - rows.start].flip(2)
        out_BHQC = biased(reversed_BHQC, k_BHTC[:, :, keys], v_BHTC[:, :, keys], bias_HQK[None], scale)
        out.append(out_BHQC.flip(2).transpose(1, 2))
    return torch.cat(out[::-1], dim=1).transpose(1, 2)[..., :C]  # in memory [B, T, H, C], as the next layer reads it


def laid_out(bias_HN: Tensor, window: Window) -> Tensor:
    """Return the bias from the greatest distance down to 0, then -inf for keys in the future, [H, S]."""
    bias_HN = window.hide(bias_HN)
    future_HN = torch.full((len(bias_HN), bias_HN.shape[1] - 1), -torch.inf, device=bias_HN.device)
    return torch.cat((bias_HN.float().flip(1), future_HN), dim=1)


def blocks(
    laid_HS: Tensor, window: Window, size: int | None = None, count: int | None = None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (queries in reverse order, keys, bias [H, Q, K]) for each block of the last `count` queries, or of all.

    A block has `size` queries, by default as many as are fastest. The bias is a view, unless the window is more than a
    function of distance.
    """
    T, device = (laid_HS.shape[1] + 1) // 2, laid_HS.device
    count, first = count or T, 0
    while first < count:
        end = T - first  # the block's latest query sees the keys before this one
        wide = window.full and end >= WIDE_KEYS
        last = min(first + (size or (WIDE_BLOCK if wide else windows.QUERY_BLOCK)), count)
        query_Q = torch.arange(T - 1 - first, T - 1 - last, -1, device=device)
        begin = window.begin(T - last)
        shape = (len(laid_HS), last - first, end - begin)
        bias_HQK = laid_HS.as_strided(shape, (laid_HS.stride(0), 1, 1), first + begin)
        if not window.by_distance:
            visible_QK = window.visible(query_Q, torch.arange(begin, end, device=device))
            bias_HQK = bias_HQK.masked_fill(~visible_QK, -torch.inf)
        yield slice(first, last), slice(begin, end), bias_HQK
        first = last


class Learned(torch.autograd.Function):
    """Attention with a gradient for the bias, for which PyTorch would write all logits.

    The backward pass recomputes logits from the stored log-sum-exp (Dao et al. 2022, arXiv 2205.14135, algorithm 4) and
    sums their gradient along diagonals. Queries are in reverse order.
    """

    @staticmethod
    def forward(
        ctx: Any, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, laid_HS: Tensor, window: Window, scale: float
    ) -> Tensor:
        kind = torch.float32 if q_BHTC.dtype in HALF else q_BHTC.dtype
        out, lse = [], []
        for rows, keys, bias_HQK in blocks(laid_HS, window, count=q_BHTC.shape[2]):
            out_BHQC, lse_BHQ = flash(
                q_BHTC[:, :, rows],
                k_BHTC[:, :, keys],
                v_BHTC[:, :, keys],
                attn_mask=bias_HQK[None].to(kind),
                scale=scale,
            )
            out.append(out_BHQC)
            lse.append(lse_BHQ)
        out_BHTC = torch.cat(out, dim=2)
        ctx.save_for_backward(q_BHTC, k_BHTC, v_BHTC, laid_HS, out_BHTC, torch.cat(lse, dim=2))
        ctx.window, ctx.scale = window, scale
        return out_BHTC

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_BHTC, k_BHTC, v_BHTC, laid_HS, out_BHTC, lse_BHT = ctx.saved_tensors
        kind = torch.float32 if q_BHTC.dtype in HALF else q_BHTC.dtype
        g_BHTC = gradients[0].to(kind)
        q_BHTC, k_BHTC, v_BHTC = q_BHTC.to(kind) * ctx.scale, k_BHTC.to(kind), v_BHTC.to(kind)
        # The part of the softmax gradient that all keys of a query share (algorithm 4, line 4).
        shared_BHT1 = (g_BHTC * out_BHTC.to(kind)).sum(-1, keepdim=True)
        lse_BHT1 = lse_BHT.to(kind)[..., None]
        dq_BHTC, dk_BHTC, dv_BHTC = (torch.zeros(x.shape, dtype=kind) for x in (q_BHTC, k_BHTC, v_BHTC))
        dlaid_HS = torch.zeros(laid_HS.shape, dtype=kind)
        with torch.autocast("cpu", enabled=False):
            for rows, keys, bias_HQK in blocks(laid_HS, ctx.window, GRADIENT_BLOCK, q_BHTC.shape[2]):
                H, Q, K = bias_HQK.shape
                size = max(1, GRADIENT_LOGITS // (Q * K))
                for some in (slice(first, min(first + size, H)) for first in range(0, H, size)):
                    # Rows are stored with a width of K + Q and read with K + Q - 1, which shifts each row by one more
                    # place to the right. Diagonals become columns.
                    skewed_HQW = torch.zeros(some.stop - some.start, Q, K + Q, dtype=kind)
                    for b in range(len(q_BHTC)):
                        query, key = (b, some, rows), (b, some, keys)
                        p_HQK = torch.baddbmm(bias_HQK[some].to(kind), q_BHTC[query], k_BHTC[key].mT)
                        p_HQK = p_HQK.sub_(lse_BHT1[query]).exp_()
                        dlogit_HQK = torch.bmm(g_BHTC[query], v_BHTC[key].mT).sub_(shared_BHT1[query]).mul_(p_HQK)
                        skewed_HQW[:, :, :K] += dlogit_HQK
                        dq_BHTC[query] = torch.bmm(dlogit_HQK, k_BHTC[key])
                        dk_BHTC[key].baddbmm_(dlogit_HQK.mT, q_BHTC[query])
                        dv_BHTC[key].baddbmm_(p_HQK.mT, g_BHTC[query])
                    diagonals_HQW = skewed_HQW.flatten(1)[:, : Q * (K + Q - 1)].view(-1, Q, K + Q - 1)
                    start = rows.start + keys.start
                    dlaid_HS[some, start : start + K + Q - 1] += diagonals_HQW.sum(1)
        dq_BHTC *= ctx.scale
        kinds = [x.dtype for x in ctx.saved_tensors[:4]]
        dq, dk, dv, dlaid = (x.to(k) for x, k in zip((dq_BHTC, dk_BHTC, dv_BHTC, dlaid_HS), kinds, strict=True))
        return dq, dk, dv, dlaid, None, None
