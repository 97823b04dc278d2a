"""Causal attention with whatever a scheme adds to it and a window hides, in memory linear in the length of the input.

Several paths compute the same: `choose_path` takes the fastest that does what scheme, window and device ask for.
Shape suffixes: B batch, T tokens, H heads, C channels of a head, D width of the residual stream.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from posexp.attention import dense, distance, flex, position, two_positions
from posexp.attention.kernel import biased, sdpa
from posexp.config import AttentionPath
from posexp.errors import Misuse
from posexp.schemes import Dims, Scheme, bias_between
from posexp.windows import Window

__all__ = ["attention", "bias_between", "biased", "choose_path", "kernel_path"]


def attention(
    scheme: Scheme,
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    pos_BT: Tensor,
    x_BTD: Tensor,
    window: Window | None = None,
    path: AttentionPath = AttentionPath.auto,
    last: int | None = None,
) -> Tensor:
    """[B, H, T, C]: every token's mixture of the values that it sees; logits are scaled by C^-0.5.

    Queries and keys come as projected: the scheme rotates them here. Without a `window` a token sees all before it.
    `path` forces one way of computing it, for comparison. With `last`, of the last tokens alone: [B, H, last, C].
    Raises Misuse if the window changes distances and the scheme reads content instead, or if the path cannot do what
    scheme and window ask for.
    """
    window = window or Window(scheme.dims)
    _, compute = choose_path(scheme, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window, path, last)
    mixed_BHTC = compute()
    return mixed_BHTC if last is None else mixed_BHTC[:, :, -last:]


def kernel_path(
    scheme: Scheme,
    dims: Dims,
    window: Window | None = None,
    path: AttentionPath = AttentionPath.auto,
    device: torch.device | None = None,
) -> str:
    """The name of the path that `attention` takes for `scheme` (of each block, if they differ), as rows record it.

    `device` is where it computes; a scheme with parameters knows that by itself.
    """
    window = window or Window(dims)
    device = device or next(iter([*scheme.parameters(), *scheme.buffers()]), torch.empty(0)).device
    qkv_BHTC = torch.zeros(1, dims.n_head, 2, dims.head_dim, device=device)
    x_BTD = qkv_BHTC.new_zeros(1, 2, dims.d_model)
    with torch.no_grad():
        pos_BT = scheme.positions(1, 2, device)
        paths = [
            choose_path(scheme.layer(i), qkv_BHTC, qkv_BHTC, qkv_BHTC, pos_BT, x_BTD, window.layer(i), path)[0]
            for i in range(dims.n_layer)
        ]
    return ", ".join(dict.fromkeys(paths))


def choose_path(
    scheme: Scheme,
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    pos_BT: Tensor,
    x_BTD: Tensor,
    window: Window,
    path: AttentionPath = AttentionPath.auto,
    last: int | None = None,
) -> tuple[str, Callable[[], Tensor]]:
    """The name of a path, and what computes it. In this order: the scheme's own attention, two positions for each
    token, a bias by distance, a general bias, none. Of the last tokens, where the path can leave out the others."""
    T, device, scale = q_BHTC.shape[2], q_BHTC.device, q_BHTC.shape[-1] ** -0.5
    q, k = scheme.rotate(q_BHTC, k_BHTC, pos_BT)
    own = scheme.attend(q, k, v_BHTC, pos_BT, x_BTD, window)
    if (own is not None or window.far is not None) and path is not AttentionPath.auto:
        what = type(scheme).__name__ if own is not None else f"window {window.fingerprint()!r}"
        raise Misuse(f"attention={path.value}: {what} has one way to compute attention, its own; leave attention out")
    if own is not None:
        if window.far is not None:
            raise Misuse(
                f"window {window.fingerprint()!r} changes distances, and {type(scheme).__name__} reads content "
                "instead: choose a window that only hides, such as sliding"
            )
        return "scheme", lambda: own
    if window.far is not None:
        return "two positions", lambda: two_positions.attend(q_BHTC, k_BHTC, v_BHTC, scheme, pos_BT, window)
    if path is AttentionPath.dense:
        return "dense", lambda: dense.attend(q, k, v_BHTC, scheme, pos_BT, window, scale)
    with torch.autocast(device.type, enabled=False):
        bias_HN = scheme.distance_bias(torch.arange(T, device=device))
        if bias_HN is None and scheme.bias(pos_BT[:, :1], pos_BT[:, :1]) is not None:
            if path is AttentionPath.flex:
                raise Misuse(
                    f"attention=flex: the bias of {type(scheme).__name__} is more than a function of distance; "
                    "leave attention out"
                )
            return "sdpa bias blocks", lambda: position.attend(q, k, v_BHTC, scheme, pos_BT, window, scale)
    plain = bias_HN is None and window.full
    if path is AttentionPath.flex or (path is AttentionPath.auto and not plain and flex.serves(q)):
        return "flex", lambda: flex.attend(q, k, v_BHTC, bias_HN, window, scale)
    if plain and last is None:
        return "sdpa causal", lambda: sdpa(q, k, v_BHTC, scale, is_causal=True)
    vector_HN = torch.zeros(1, T, device=device) if bias_HN is None else bias_HN
    return "sdpa distance view", lambda: distance.attend(q, k, v_BHTC, vector_HN, window, scale, last)
