"""Causal attention with any scheme and any window, in memory linear in the length of the input.

Several paths compute the same result. `paths` yields those that scheme, window and device allow, the fastest first.
Shape suffixes: B batch, T tokens, H heads, C channels of a head, D width of the residual stream, N distances.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from posexp.attention import by_distance, by_position, dense, far_keys, flex
from posexp.config.sections import AttentionPath
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.ops.sdpa import biased, sdpa
from posexp.schemes import Scheme, bias_between, slopes_of
from posexp.windows import Window

__all__ = ["attention", "bias_between", "biased", "kernel_path"]

# The computation of a path, from q, k, v, pos_BT, x_BTD and the scale of logits to [B, H, T, C], or None if the hook of
# the scheme returns None.
Compute = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor | None]


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
    """Return the mixture of visible values for every token, [B, H, T, C]. Logits are scaled by C^-0.5.

    Queries and keys are as projected; the scheme rotates them here. `window` is full by default. `path` forces a path
    for comparison. With `last`, the result is that of the last tokens alone, [B, H, last, C]. Raises Misuse if the
    window changes distances but the scheme reads content, or if `path` does not support the scheme or the window.
    """
    window = window or Window(scheme.dims)
    scale = q_BHTC.shape[-1] ** -0.5
    if window.far is None:  # the path of far keys rotates to two positions
        q_BHTC, k_BHTC = scheme.rotate(q_BHTC, k_BHTC, pos_BT)
    for _, compute in paths(scheme, window, path, q_BHTC.device, last):
        mixed_BHTC = compute(q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, scale)
        if mixed_BHTC is not None:
            break
    assert mixed_BHTC is not None  # the last path calls no hook
    return mixed_BHTC if last is None else mixed_BHTC[:, :, -last:]


def kernel_path(
    scheme: Scheme,
    dims: Dims,
    window: Window | None = None,
    path: AttentionPath = AttentionPath.auto,
    device: torch.device | None = None,
) -> str:
    """Return the path that `attention` takes for `scheme` (one per block, if blocks differ), as recorded in rows.

    Nothing is computed, except where flex.path tries flash attention on a GPU. `device` is the device of the
    computation, by default that of the scheme's parameters. Raises Misuse as `attention` does.
    """
    window = window or Window(dims)
    device = device or next(iter([*scheme.parameters(), *scheme.buffers()]), torch.empty(0)).device
    names = [next(paths(scheme.layer(i), window.layer(i), path, device))[0] for i in range(dims.n_layer)]
    return ", ".join(dict.fromkeys(names))


def paths(
    scheme: Scheme, window: Window, path: AttentionPath, device: torch.device, last: int | None = None
) -> Iterator[tuple[str, Compute]]:
    """Yield the name and the computation of each possible path. The next path is used if a computation returns None.

    The order is: the scheme's own attention, two positions for each token, a bias by distance, a general bias, no bias.
    With `last`, a path may compute the last tokens alone.
    """
    own, far = scheme.acts("attend"), window.far is not None
    if (own or far) and path is not AttentionPath.auto:
        what = type(scheme).__name__ if own else f"window {window.fingerprint()!r}"
        raise Misuse(f"attention={path.value}: {what} has one way to compute attention, its own; omit attention")
    if own and far:
        raise Misuse(
            f"window {window.fingerprint()!r} changes distances, and {type(scheme).__name__} reads content "
            "instead: choose a window that only hides tokens, such as sliding"
        )
    if own:
        yield "scheme", lambda q, k, v, pos, x, scale: scheme.attend(q, k, v, pos, x, window)
    if far:
        yield "two positions", lambda q, k, v, pos, x, scale: far_keys.attend(q, k, v, scheme, pos, window)
        return
    if path is AttentionPath.dense:
        yield "dense", lambda q, k, v, pos, x, scale: dense.attend(q, k, v, scheme, pos, window, scale)
        return
    flexible = path is AttentionPath.flex or (path is AttentionPath.auto and flex.serves(device, scheme.dims.head_dim))
    flexed = flex.path(device, scheme.dims.head_dim, window) if flexible else ""
    if scheme.acts("distance_bias"):

        def from_distances(q: Tensor, k: Tensor, v: Tensor, pos: Tensor, x: Tensor, scale: float) -> Tensor | None:
            with torch.autocast(q.device.type, enabled=False):
                bias_HN = scheme.distance_bias(torch.arange(q.shape[2], device=q.device))
            if bias_HN is None:
                return None
            if flexible:
                slopes_H = slopes_of(scheme, q.device)
                return flex.attend(q, k, v, bias_HN, window, scale, slopes_H, flash=flexed == flex.FLASH)
            return by_distance.attend(q, k, v, bias_HN, window, scale, last)

        yield flexed or "sdpa distance view", from_distances
    if scheme.acts("bias"):
        if path is AttentionPath.flex:
            raise Misuse(
                f"attention=flex: the bias of {type(scheme).__name__} is more than a function of distance; "
                "omit attention"
            )
        yield "sdpa bias blocks", lambda q, k, v, pos, x, scale: by_position.attend(q, k, v, scheme, pos, window, scale)
    if path is AttentionPath.flex or (flexible and not window.full):
        yield "flex", lambda q, k, v, pos, x, scale: flex.attend(q, k, v, None, window, scale)
    elif window.full and last is None:
        yield "sdpa causal", lambda q, k, v, pos, x, scale: sdpa(q, k, v, scale, is_causal=True)
    else:

        def hidden_alone(q: Tensor, k: Tensor, v: Tensor, pos: Tensor, x: Tensor, scale: float) -> Tensor:
            return by_distance.attend(q, k, v, torch.zeros(1, q.shape[2], device=q.device), window, scale, last)

        yield "sdpa distance view", hidden_alone
