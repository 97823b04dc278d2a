"""Schemes that read content equal their formulas written out pair by pair in float64, far out, and in little memory.

Shape suffixes: B batch, T tokens, H heads, C channels of a head, D width of the residual stream.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from posexp import windows
from posexp.attention import attention, kernel_path
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme
from posexp.schemes import cope as cope_file
from posexp.windows import Window

DIMS = Dims(d_model=8, n_head=2, n_layer=2, train_length=64)
SCHEMES: list[tuple[str, dict]] = [
    ("fox", {}),
    ("cable", {}),
    ("cope", {"max_pos": 4}),  # soon reached
    ("cope", {"max_pos": 64}),
    ("stick_breaking", {"remainder": True}),
    ("stick_breaking", {"remainder": False}),
    ("path", {"rank": 3, "conv": True}),
    ("path", {"rank": 3, "conv": False}),
    ("dape", {"width": 5, "inner": "alibi"}),
    ("dape", {"width": 5, "inner": "kerple_log"}),
    ("dape", {"width": 5, "kernel": 3, "inner": "alibi"}),
    ("dape", {"width": 3, "kernel": 5, "inner": "kerple_log"}),
    ("inkling", {"curves": 3, "extent": 4}),
    ("inkling", {"curves": 2, "extent": 40}),  # never reached
    ("wavelet", {"scales": 3}),
    ("grape", {}),
    ("wall", {}),
    ("carope", {}),
    ("selective_rope", {"conv": True}),
    ("selective_rope", {"conv": False}),
]
DEFAULTS = ["fox", "cable", "cope", "stick_breaking", "path", "dape", "inkling", "grape", "wall", "carope"]
DEFAULTS += ["selective_rope", "wavelet"]
ROTATED = ["carope", "selective_rope"]  # their queries and keys are rounded once more, as with RoPE
WINDOWS = [(None, {}), ("sliding", {"size": 5}), ("bca", {"block": 4}), ("per_head", {})]


def say(value: object) -> str:
    return ",".join(f"{key}={inner}" for key, inner in value.items()) if isinstance(value, dict) else str(value)


def made(name: str, dims: Dims = DIMS, **options: Any) -> Scheme:
    """A scheme whose parameters all do something."""
    scheme = build_scheme(name, dims, **options)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in scheme.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw).abs() if weight.ndim < 2 else weight)
            weight.add_(0.6 * torch.randn(weight.shape, generator=draw) * (weight.ndim > 1))
    return scheme


def inputs(T: int, dims: Dims = DIMS, B: int = 2, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k and v, positions of sequences that differ, and the block's input."""
    draw = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(B, dims.n_head, T, dims.head_dim, generator=draw) * scale for _ in range(3))
    pos_BT = torch.arange(T) * (torch.arange(B)[:, None] + 1)
    return q, k, v, pos_BT, torch.randn(B, T, dims.d_model, generator=draw) * scale


# What a head's query i and key j have: [H, T, C] queries and keys, the positions, the input, the keys that i sees.
Pair = Callable[[Any, Tensor, Tensor, Tensor, Tensor, int, int, int, list[int]], Tensor]


def content(q_HTC: Tensor, k_HTC: Tensor, h: int, i: int, j: int) -> Tensor:
    return (q_HTC[h, i] * k_HTC[h, j]).sum() / q_HTC.shape[-1] ** 0.5


def fox(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    kept = torch.ones((), dtype=torch.float64)
    for t in range(j + 1, i + 1):
        kept = kept / (1 + torch.exp(-(part.gate.weight[h] @ x[t] + part.gate.bias[h])))
    return content(q, k, h, i, j) + kept.log()


def cable(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    logit = content(q, k, h, i, j)
    for t in range(j + 1, i + 1):
        logit = logit - torch.log(1 + torch.exp(part.gate.weight[h] @ x[t] + part.gate.bias[h]))
    return logit


def cope(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    last = len(part.table_PC) - 1
    p = sum(1 / (1 + torch.exp(-content(q, k, h, i, t))) for t in seen if t >= j)
    if p >= last:
        return content(q, k, h, i, j) + q[h, i] @ part.table_PC[last]
    low = int(p)
    return content(q, k, h, i, j) + q[h, i] @ ((low + 1 - p) * part.table_PC[low] + (p - low) * part.table_PC[low + 1])


def path(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    C = q.shape[-1]
    channels = slice(h * C, (h + 1) * C)
    key_C = k[h, j]
    for t in range(j + 1, i + 1):
        w_C = (part.up.weight @ (part.down.weight @ x[t]))[channels]
        if part.conv is not None:
            kernel_C3 = part.conv.weight[channels, 0]
            taps = [(part.up.weight @ (part.down.weight @ x[t - back]))[channels] for back in range(min(t, 2) + 1)]
            w_C = sum(tap_C * kernel_C3[:, 2 - back] for back, tap_C in enumerate(taps))
            w_C = w_C / (1 + torch.exp(-w_C))
        w_C = w_C / (w_C @ w_C + 1e-6).sqrt()
        beta = 2 / (1 + torch.exp(-(part.beta.weight[h] @ x[t] + part.beta.bias[h])))
        key_C = key_C - beta * w_C * (w_C @ key_C)
    return q[h, i] @ key_C / C**0.5


def dape(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    def both(n: int) -> Tensor:
        """Logits and biases of all heads; 0 for keys that the query does not see."""
        if n not in seen:
            return x.new_zeros(2 * len(q))
        content_H = torch.stack([content(q, k, head, i, n) for head in range(len(q))])
        return torch.cat((content_H, part.inner.distance_bias((pos[i] - pos[n])[None])[:, 0].double()))

    def layer(at: Any, values: Callable[[int], Tensor], n: int) -> Tensor:
        taps = at.weight.flatten(2) if at.weight.ndim == 4 else at.weight[..., None]
        reach = taps.shape[2] // 2
        return at.bias + sum(taps[:, :, tap] @ values(n + tap - reach) for tap in range(taps.shape[2]))

    def hidden(n: int) -> Tensor:
        hidden_W = layer(first, both, n)
        return torch.where(hidden_W > 0, hidden_W, 0.01 * hidden_W) * (n >= 0)

    first, _, last = part.mixer.mlp
    return (both(j)[: len(q)] + both(j)[len(q) :] + layer(last, hidden, j))[h]


def inkling(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    curves, extent = part.curve_RE.shape
    logit = content(q, k, h, i, j)
    for r in range(curves if i - j < extent else 0):
        logit = logit + (part.mix.weight[h * curves + r] @ x[i]) * part.curve_RE[r, i - j]
    return logit


def wavelet(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    logit = content(q, k, h, i, j)
    for c in range(q.shape[-1]):
        t = torch.tensor((i - j - c // part.scales) / 2 ** (c % part.scales), dtype=torch.float64)
        logit = logit + q[h, i, c] * (1 - t * t) * torch.exp(-t * t / 2) / q.shape[-1] ** 0.5
    return logit


def grape(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    u_C = part.direction_HC[h] / (part.direction_HC[h] @ part.direction_HC[h]).sqrt()
    gate = torch.log(1 + torch.exp(u_C @ k[h, j] / k.shape[-1] ** 0.5))
    slope = torch.log(1 + torch.exp(part.rate_H[h])) * (0.0625, 0.00390625)[h]
    return content(q, k, h, i, j) - (pos[i] - pos[j]) * slope * gate


def wall(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    C = q.shape[-1]
    key_C, channels = k[h, j], slice(h * C, (h + 1) * C)
    for t in range(j + 1, i + 1):
        key_C = key_C / (1 + torch.exp(-(part.gate.weight[channels] @ x[t] + part.gate.bias[channels])))
    return q[h, i] @ key_C / C**0.5


def turned(q_C: Tensor, k_C: Tensor, angle_I: Tensor) -> Tensor:
    """The logit of a key that is turned back by the angles."""
    I = len(q_C) // 2
    q_I, k_I = (torch.complex(x_C[:I], x_C[I:]) for x_C in (q_C, k_C))
    return (q_I * k_I.conj() * torch.exp(1j * angle_I)).real.sum() / len(q_C) ** 0.5


def carope(part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]) -> Tensor:
    angle_I = torch.zeros(q.shape[-1] // 2, dtype=x.dtype)
    for t in range(j + 1, i + 1):
        first = 1 / (1 + torch.log(1 + torch.exp(part.first.weight[h] @ x[t] + part.first.bias[h])))
        angle_I = angle_I + torch.stack([first ** (pair + 1) for pair in range(len(angle_I))])
    return turned(q[h, i], k[h, j], angle_I)


def selective_rope(
    part: Any, q: Tensor, k: Tensor, pos: Tensor, x: Tensor, h: int, i: int, j: int, seen: list[int]
) -> Tensor:
    H, C = len(q), q.shape[-1]
    unit_THC = x.view(len(x), H, C) / x.view(len(x), H, C).square().sum(-1, keepdim=True).sqrt()
    direction_CI = part.direction_HCI[h] / part.direction_HCI[h].square().sum(0).sqrt()
    angle_I = torch.zeros(C // 2, dtype=x.dtype)
    for t in range(j + 1, i + 1):
        phase_I = unit_THC[t, h] @ direction_CI * part.size_H[h]
        if part.conv is not None:
            kernel_I4 = part.conv.weight[h * (C // 2) : (h + 1) * (C // 2), 0]
            taps = [unit_THC[t - back, h] @ direction_CI * part.size_H[h] for back in range(min(t, 3) + 1)]
            phase_I = sum(tap_I * kernel_I4[:, 3 - back] for back, tap_I in enumerate(taps))
            phase_I = phase_I / (1 + torch.exp(-phase_I))
        gate = 1 / (1 + torch.exp(-(part.gate.weight[h] @ unit_THC[t].flatten() + part.gate.bias[h])))
        angle_I = angle_I + gate * phase_I * 500_000 ** (-2 * torch.arange(C // 2, dtype=x.dtype) / C)
    return turned(q[h, i], k[h, j], angle_I)


def by_softmax(pair: Pair) -> Callable[..., Tensor]:
    def row(
        part: Any, q: Tensor, k: Tensor, v: Tensor, pos: Tensor, x: Tensor, h: int, i: int, seen: list[int]
    ) -> Tensor:
        share = torch.stack([pair(part, q, k, pos, x, h, i, j, seen) for j in seen]).exp()
        return sum(share[n] * v[h, j] for n, j in enumerate(seen)) / share.sum()

    return row


def by_breaking(
    part: Any, q: Tensor, k: Tensor, v: Tensor, pos: Tensor, x: Tensor, h: int, i: int, seen: list[int]
) -> Tensor:
    left, mixed_C = torch.ones((), dtype=torch.float64), torch.zeros_like(v[h, i])
    for j in reversed([j for j in seen if j < i]):
        share = left / (1 + torch.exp(-content(q, k, h, i, j)))
        left, mixed_C = left - share, mixed_C + share * v[h, j]
    return mixed_C + left * v[h, i] if part.remainder else mixed_C


PAIRS: list[Pair] = [fox, cable, cope, path, dape, inkling, wavelet, grape, wall, carope, selective_rope]
FORMULAS = {getattr(pair, "__name__", ""): by_softmax(pair) for pair in PAIRS} | {"stick_breaking": by_breaking}


def written_out(
    name: str, part: Scheme, q: Tensor, k: Tensor, v: Tensor, pos_BT: Tensor, x: Tensor, window: Window
) -> Tensor:
    B, H, T = q.shape[:3]
    seen_HTT = window.visible(torch.arange(T), torch.arange(T)).expand(H, T, T)
    seen = [[[j for j in range(T) if seen_HTT[h, i, j]] for i in range(T)] for h in range(H)]
    rows = [
        FORMULAS[name](part, q[b], k[b], v[b], pos_BT[b], x[b], h, i, seen[h][i])
        for b in range(B)
        for h in range(H)
        for i in range(T)
    ]
    return torch.stack(rows).view(B, H, T, -1)


@pytest.mark.parametrize(("window", "sizes"), WINDOWS, ids=say)
@pytest.mark.parametrize(("name", "options"), SCHEMES, ids=say)
def test_outputs_and_gradients_equal_the_formula(
    name: str, options: dict, window: str | None, sizes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "QUERY_BLOCK", 5)  # windows and blocks of queries do not fit each other
    scheme = made(name, **options).double()
    part = scheme.layer(1)
    q, k, v, pos_BT, x = (given.double() if given.is_floating_point() else given for given in inputs(13))
    leaves = [given.requires_grad_() for given in (q, k, v, x)] + list(part.parameters())
    seen = windows.build_window(window, DIMS, **sizes) if window else Window(DIMS)
    got = attention(part, q, k, v, pos_BT, x, seen)
    wanted = written_out(name, part, q, k, v, pos_BT, x, seen)
    assert kernel_path(build_scheme(name, DIMS, **options), DIMS) == "scheme"
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)
    slope = torch.randn(got.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradients = [torch.autograd.grad((out * slope).sum(), leaves, allow_unused=True) for out in (got, wanted)]
    for got_part, wanted_part in zip(*gradients, strict=True):
        if wanted_part is None:  # schemes that do not read the block's input
            assert got_part is None
        else:
            torch.testing.assert_close(got_part, wanted_part, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_block_has_parameters_of_its_own(name: str) -> None:
    def count(n_layer: int) -> int:
        scheme = build_scheme(name, Dims(8, 2, n_layer, 64), **({"inner": "alibi"} if name == "dape" else {}))
        return sum(weight.numel() for weight in scheme.parameters())

    assert count(3) == 3 * count(1)
    assert (count(1) > 0) == (name not in ("stick_breaking", "wavelet"))


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_it_promises(name: str) -> None:
    scheme = build_scheme(name, DIMS)
    assert scheme.relative and scheme.reads_positions and scheme.prefix_stable and scheme.max_length is None


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DEFAULTS if name not in ROTATED])
def test_far_out_it_is_finite_and_autocast_rounds_nothing_inside(name: str) -> None:
    dims = Dims(d_model=4, n_head=1, n_layer=1, train_length=64)
    scheme = made(name, dims, **({"width": 4} if name == "dape" else {}))
    q, k, v, pos_BT, x = (
        given.bfloat16() if given.is_floating_point() else given for given in inputs(8192, dims, B=1, scale=2)
    )
    with torch.no_grad():
        single = attention(scheme.layer(0), q.float(), k.float(), v.float(), pos_BT, x.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = attention(scheme.layer(0), q, k, v, pos_BT, x)
    assert single.dtype == torch.float32 and half.dtype == torch.bfloat16
    assert bool(single.isfinite().all())
    torch.testing.assert_close(half.float(), single, rtol=2**-8, atol=2**-7)


@pytest.mark.parametrize("name", DEFAULTS)
def test_gradients_of_extreme_inputs_are_finite(name: str) -> None:
    scheme = made(name)
    q, k, v, pos_BT, x = (
        given.requires_grad_() if given.is_floating_point() else given for given in inputs(600, scale=20)
    )
    out = attention(scheme.layer(0), q, k, v, pos_BT, x)
    out.square().sum().backward()
    assert bool(out.isfinite().all())
    for weight in (q, k, v, *scheme.layer(0).parameters()):
        assert weight.grad is not None and bool(weight.grad.isfinite().all())


PEAK = """
import torch
from posexp import windows
from posexp.attention import attention
from posexp.evaluation.scoring import peak_memory
from posexp.schemes import Dims, build_scheme

torch.set_num_threads(1)
windows.QUERY_BLOCK = 32
dims = Dims(d_model=128, n_head=4, n_layer=1, train_length=512)
names = ["fox", "cable", "stick_breaking", "path", "cope", "inkling", "grape", "wall", "carope", "selective_rope"]
names += ["wavelet"]
for T, names in ((8, ["fox"]), (4096, names)):
    q = torch.ones(1, 4, T, 32)
    for name in names:
        with torch.no_grad():
            attention(build_scheme(name, dims).layer(0), q, q, q, torch.arange(T)[None], q.new_zeros(1, T, 128))
        print(name, peak_memory(torch.device("cpu")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="tells no peak memory")
def test_no_matrix_of_all_pairs_is_ever_written() -> None:
    """In float32 one would take 256 MiB at 4096, and a block of 32 queries takes 2; the allocator keeps some more."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    (_, start), *peaks = (line.split() for line in done.stdout.splitlines())
    for name, peak in peaks:
        assert (int(peak) - int(start)) / 2**20 < 200, f"{name} writes too much"


def weights(scheme: Scheme, q_HTC: Tensor, k_HTC: Tensor, x_TD: Tensor | None = None) -> Tensor:
    """[H, T, T]: what each token takes of each, in the first block."""
    H, T, C = q_HTC.shape
    x_1TD = torch.zeros(1, T, H * C) if x_TD is None else x_TD[None]
    eye_1HTT = torch.eye(T).expand(1, H, T, T)
    with torch.no_grad():
        return attention(scheme.layer(0), q_HTC[None], k_HTC[None], eye_1HTT, torch.arange(T)[None], x_1TD)[0]


def gated(name: str, bias: list[float], dims: Dims = DIMS) -> Scheme:
    """Gates that do not read the input."""
    scheme = build_scheme(name, dims)
    with torch.no_grad():
        for part in scheme.layers:
            part.gate.weight.zero_()
            part.gate.bias.copy_(torch.tensor(bias))
    return scheme


def test_open_gates_forget_nothing_and_closed_ones_everything_else() -> None:
    q, k, v, pos_BT, x = inputs(300)
    plain = attention(build_scheme("none", DIMS), q, k, v, pos_BT, x)
    open_one = attention(gated("fox", [100.0, 100.0]).layer(0), q, k, v, pos_BT, x)
    torch.testing.assert_close(open_one, plain)
    torch.testing.assert_close(attention(gated("fox", [-1e4, -1e4]).layer(0), q, k, v, pos_BT, x), v)


def test_a_gate_bias_of_five_keeps_almost_everything() -> None:
    zeros_HTC = torch.zeros(2, 3, 4)
    for bias, kept in ((0.0, 0.5), (5.0, 0.993307)):
        scheme = build_scheme("fox", DIMS, gate_bias=bias)
        row = weights(scheme, zeros_HTC, zeros_HTC)[0, 2]
        assert (row / row[2]).tolist() == pytest.approx([kept**2, kept, 1.0], abs=1e-5)


def test_constant_steps_are_alibi() -> None:
    alibi = build_scheme("alibi", DIMS)
    slope_H = -alibi.distance_bias(torch.tensor([1]))[:, 0]
    cable_scheme = gated("cable", torch.log(torch.expm1(slope_H)).tolist())
    q, k, v, pos_BT, x = inputs(300)
    wanted = attention(alibi, q, k, v, torch.arange(300)[None], x)
    torch.testing.assert_close(attention(cable_scheme.layer(0), q, k, v, pos_BT, x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_nearest_keys_stay_exact_after_many_tokens() -> None:
    """Each token halves the rest: after 16384 of them a float32 sum is off by a thousandth."""
    T, near = 16_384, 8
    dims = Dims(d_model=near, n_head=1, n_layer=1, train_length=64)
    zeros_1HTC, v_1HTC = torch.zeros(2, 1, 1, T, near)
    v_1HTC[0, 0, T - near :] = torch.eye(near).flip(0)
    scheme = gated("fox", [0.0], dims)
    with torch.no_grad():
        out = attention(scheme.layer(0), zeros_1HTC, zeros_1HTC, v_1HTC, torch.arange(T)[None], torch.zeros(1, T, near))
    wanted_C = 0.5 ** (1 + torch.arange(near, dtype=torch.float64))
    torch.testing.assert_close(out[0, 0, -1].double(), wanted_C, rtol=1e-5, atol=0)


def test_contextual_positions_count_marked_tokens() -> None:
    """The entry for a count of two lifts the second marked token back, however far that is."""
    T, marks = 20, [3, 8, 9, 15]
    dims = Dims(d_model=2, n_head=1, n_layer=1, train_length=64)
    scheme = build_scheme("cope", dims)
    q_1TC, k_1TC = torch.ones(1, T, 2), torch.zeros(1, T, 2)
    k_1TC[0, :, 0] = -30.0
    k_1TC[0, marks, 0] = 30.0
    with torch.no_grad():
        scheme.layer(0).table_PC[2, 1] = 200.0
    weight_TT = weights(scheme, q_1TC, k_1TC)[0]
    for query, second in ((9, 8), (12, 8), (15, 9), (19, 9)):
        assert float(weight_TT[query, second]) == pytest.approx(1.0, abs=1e-5)


def test_contextual_positions_stop_where_every_sum_has_reached_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    table = made("cope", max_pos=4).layer(0)
    read: list[int] = []
    near_positions = table.near_positions
    q, k, v, pos_BT, x_BTD = inputs(200)
    found = []
    for near in (1, 200):
        monkeypatch.setattr(cope_file, "NEAR", near)
        monkeypatch.setattr(table, "near_positions", lambda z: [p := near_positions(z), read.append(p.shape[-1])][0])
        leaves = [part.double().requires_grad_() for part in (q, k, v)]
        out_BHTC = attention(table, *leaves, pos_BT, x_BTD)
        found.append([out_BHTC, *torch.autograd.grad(out_BHTC.square().sum(), [*leaves, table.table_PC])])
    half = len(read) // 2
    assert sum(read[:half]) < 0.8 * sum(read[half:])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted)


def test_contextual_positions_differ_from_none_by_their_table_alone() -> None:
    q, k, v, pos_BT, x = inputs(50)
    scheme = build_scheme("cope", DIMS)
    torch.testing.assert_close(
        attention(scheme.layer(0), q, k, v, pos_BT, x), attention(Scheme(DIMS), q, k, v, pos_BT, x)
    )


def test_equal_logits_break_the_stick_in_halves() -> None:
    zeros_HTC = torch.zeros(1, 5, 8)
    dropped = weights(build_scheme("stick_breaking", DIMS, remainder=False), zeros_HTC, zeros_HTC)[0]
    kept = weights(build_scheme("stick_breaking", DIMS, remainder=True), zeros_HTC, zeros_HTC)[0]
    assert dropped[4].tolist() == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.0])
    assert kept[4].tolist() == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1 / 16])
    assert dropped[0].tolist() == [0.0] * 5 and kept[0].tolist() == [1.0] + [0.0] * 4


def test_a_stick_is_never_more_than_whole() -> None:
    q, k, *_ = inputs(400, scale=3)
    dropped, kept = (
        weights(build_scheme("stick_breaking", DIMS, remainder=rest), q[0], k[0]) for rest in (False, True)
    )
    assert bool((dropped >= 0).all()) and bool((dropped.sum(-1) <= 1 + 1e-5).all())
    assert not bool(dropped.triu(0).any()), "a token takes a share of itself or of what comes after it"
    torch.testing.assert_close(kept.sum(-1), torch.ones(2, 400))


def test_whole_reflections_flip_one_channel_at_every_step() -> None:
    dims = Dims(d_model=4, n_head=1, n_layer=1, train_length=64)
    scheme = build_scheme("path", dims, rank=1, conv=False)
    part = scheme.layer(0)
    with torch.no_grad():
        part.down.weight.fill_(1.0)
        part.up.weight.copy_(torch.tensor([[0.0], [5.0], [0.0], [0.0]]))
        part.beta.weight.zero_()
        part.beta.bias.fill_(100.0)  # beta = 2
    T = 9
    q, k, *_ = inputs(T, dims)
    index_T = torch.arange(T)
    sign_TT = (-1.0) ** (index_T[:, None] - index_T)
    flipped_TT = q[0, 0, :, 1:2] @ k[0, 0, :, 1:2].T * sign_TT
    rest_TT = q[0, 0][:, [0, 2, 3]] @ k[0, 0][:, [0, 2, 3]].T
    wanted_TT = ((flipped_TT + rest_TT) / 2).masked_fill(index_T > index_T[:, None], -torch.inf).softmax(-1)
    torch.testing.assert_close(weights(scheme, q[0], k[0], torch.ones(T, 4))[0], wanted_TT, rtol=1e-4, atol=1e-5)


def test_an_mlp_that_says_nothing_leaves_the_inner_bias() -> None:
    scheme = build_scheme("dape", DIMS, inner="alibi")
    with torch.no_grad():
        for mixer in scheme.layers:
            mixer.mlp[2].weight.zero_()
    q, k, v, pos_BT, x = inputs(300)
    wanted = attention(build_scheme("alibi", DIMS), q, k, v, pos_BT[:1], x)
    torch.testing.assert_close(attention(scheme.layer(0), q, k, v, pos_BT[:1], x), wanted, rtol=1e-4, atol=1e-5)


def test_a_wrapper_promises_and_does_what_its_inner_scheme_does() -> None:
    absolute = build_scheme("dape", DIMS, inner="fire")
    assert absolute.relative == build_scheme("fire", DIMS).relative is False
    assert "Fire" in absolute.fingerprint() and "width=32" in absolute.fingerprint()


@pytest.mark.parametrize("inner", ["none", "rope", "fox"])
def test_without_a_bias_there_is_nothing_to_adapt(inner: str) -> None:
    with pytest.raises(Misuse, match=r"scheme.inner=.* adds no bias"):
        build_scheme("dape", DIMS, inner=inner)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cope", {"max_pos": 1}),
        ("path", {"rank": 0}),
        ("dape", {"width": 0}),
        ("inkling", {"curves": 0}),
        ("inkling", {"extent": 0}),
    ],
    ids=say,
)
def test_sizes_that_cannot_be_are_refused(name: str, options: dict) -> None:
    ((option, value),) = options.items()
    with pytest.raises(Misuse, match=f"scheme.{option}={value} must be at least"):
        build_scheme(name, DIMS, **options)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_window_that_changes_distances_is_refused(name: str) -> None:
    with pytest.raises(Misuse, match="reads content"):
        attention(build_scheme(name, DIMS).layer(0), *inputs(20), windows.build_window("sinks", DIMS, sinks=2, size=6))
