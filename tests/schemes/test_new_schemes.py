"""What sets the schemes of 2024 to 2026 apart, and where they become schemes that are known.

Their formulas are tested in test_content_schemes.py, those of FoPE here.
Shape suffixes: B batch, H heads, T tokens, C channels of a head, D width of the residual stream, I pairs of channels.
"""

import math

import pytest
import torch
from torch import Tensor

from posexp.attention import attention, kernel_path
from posexp.config.components import lean
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.rope import Rope
from posexp.windows import build_window

DIMS = Dims(d_model=16, n_head=2, n_layer=2, train_length=64)
T = 300


def inputs(T: int = T, dims: Dims = DIMS) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(T)
    q, k, v = torch.randn(3, 1, dims.n_head, T, dims.head_dim, generator=draw)
    return q, k, v, torch.arange(T)[None], torch.randn(1, T, dims.d_model, generator=draw)


def first_block(scheme: Scheme, *given: Tensor) -> Tensor:
    with torch.no_grad():
        return attention(scheme.layer(0), *given)


def weights(scheme: Scheme, q_HTC: Tensor, k_HTC: Tensor, x_TD: Tensor) -> Tensor:
    """[H, T, T]: what each token takes of each, in the first block."""
    H, T, _ = q_HTC.shape
    eye_1HTT = torch.eye(T).expand(1, H, T, T)
    return first_block(scheme, q_HTC[None], k_HTC[None], eye_1HTT, torch.arange(T)[None], x_TD[None])[0]


@torch.no_grad()
def set_gates(scheme: Scheme, bias: float) -> Scheme:
    """Give all gates one bias and make them ignore the input."""
    for name, weight in scheme.named_parameters():
        if ".gate." in name:
            weight.fill_(bias if name.endswith("bias") else 0.0)
    return scheme


def inkling(extent: int | None, curves: int = 1) -> Scheme:
    """A scheme whose bias is 5 for every distance below the extent, if the input is all ones."""
    scheme = build_scheme("inkling", DIMS, curves=curves, extent=extent)
    with torch.no_grad():
        for name, weight in scheme.named_parameters():
            weight.fill_(5.0 if name.endswith("curve_RE") else 1 / (DIMS.d_model * curves))
    return scheme


def test_inkling_has_no_bias_from_the_extent_on() -> None:
    zeros_HTC, extent = torch.zeros(2, T, 8), 20
    weight_TT = weights(inkling(extent), zeros_HTC, zeros_HTC, torch.ones(T, 16))[0]
    ratio_T = weight_TT[-1].flip(0) / weight_TT[-1, 0]  # of the last query, nearest key first
    torch.testing.assert_close(ratio_T[:extent], torch.full((extent,), math.exp(5.0)))
    torch.testing.assert_close(ratio_T[extent:], torch.ones(T - extent))


def test_inkling_mixes_its_curves_by_the_query_alone() -> None:
    zeros_HTC, x_TD = torch.zeros(2, 40, 8), torch.ones(40, 16)
    x_TD[25] = -1.0
    weight_TT = weights(inkling(4), zeros_HTC, zeros_HTC, x_TD)[0]
    for query, sign in ((24, 1), (25, -1), (26, 1)):
        near_to_far = float(weight_TT[query, query] / weight_TT[query, 0])
        assert near_to_far == pytest.approx(math.exp(5.0 * sign), rel=1e-5)


def test_the_extent_is_a_quarter_of_the_training_length_and_one_as_long_is_noted() -> None:
    scheme = build_scheme("inkling", DIMS)
    assert "extent=16" in scheme.fingerprint() and scheme.notes() == []
    assert "no key with a bias of 0" in build_scheme("inkling", DIMS, extent=64).notes()[0]


def test_a_channel_of_the_query_weighs_one_wavelet_which_ends() -> None:
    """Of 8 channels and 2 scales, channel 5 has the second scale and the third shift: a = 2, b = 2."""
    q_HTC = torch.zeros(2, T, 8)
    q_HTC[..., 5] = 8**0.5
    scheme = build_scheme("wavelet", DIMS, scales=2)
    weight_TT = weights(scheme, q_HTC, torch.zeros(2, T, 8), torch.zeros(T, 16))[0]
    logit_T = (weight_TT[-1] / weight_TT[-1, 0]).log().flip(0)  # of the last query, nearest key first
    time_T = (torch.arange(T) - 2) / 2
    torch.testing.assert_close(logit_T, (1 - time_T**2) * (-(time_T**2) / 2).exp(), rtol=0, atol=1e-5)
    assert not logit_T[40:].any()


@pytest.mark.parametrize(("length", "scales"), [(3, 1), (64, 5), (512, 8), (4096, 11)])
def test_wavelets_have_scales_up_to_a_quarter_of_the_training_length(length: int, scales: int) -> None:
    dims = Dims(d_model=16, n_head=2, n_layer=1, train_length=length)
    scheme = build_scheme("wavelet", dims)
    assert f"scales={scales}" in scheme.fingerprint()
    assert bool(scheme.notes()) == (length == 3)
    assert "scale of 2048 tokens" in build_scheme("wavelet", dims, scales=12).notes()[0]


def test_equal_keys_make_grape_alibi() -> None:
    scheme, alibi = build_scheme("grape", DIMS), build_scheme("alibi", DIMS)
    q, _, v, pos_1T, x_BTD = inputs()
    zeros = torch.zeros_like(q)
    # softplus(0) = log 2, so a rate of softplus^-1(1 / log 2) leaves ALiBi's slopes
    with torch.no_grad():
        for part in scheme.layers:
            part.rate_H.fill_(math.log(math.expm1(1 / math.log(2))))
    wanted = first_block(alibi, q, zeros, v, pos_1T, x_BTD)
    torch.testing.assert_close(first_block(scheme, q, zeros, v, pos_1T, x_BTD), wanted)
    assert "ALiBi's steepest slope is 0.0625" in scheme.notes()[0]


def test_open_wall_gates_are_no_positions_and_closed_ones_leave_logits_of_zero() -> None:
    q, k, v, pos_1T, x_BTD = inputs()
    plain = first_block(build_scheme("none", DIMS), q, k, v, pos_1T, x_BTD)
    torch.testing.assert_close(first_block(set_gates(build_scheme("wall", DIMS), 100.0), q, k, v, pos_1T, x_BTD), plain)
    closed_HTT = weights(set_gates(build_scheme("wall", DIMS), -1e4), q[0], k[0], x_BTD[0])
    own_HT = (q[0] * k[0]).sum(-1) / 8**0.5
    wanted_HTT = torch.diag_embed(own_HT).masked_fill(torch.ones(T, T).triu(1) > 0, -torch.inf).softmax(-1)
    torch.testing.assert_close(closed_HTT, wanted_HTT)


def test_equal_wall_gates_decay_the_product_of_query_and_key() -> None:
    """Across blocks and squares: by a factor for every token, as ALiBi lowers the logit by a step for every token."""
    q, k, _, _, x_BTD = inputs()
    gap_TT = (torch.arange(T)[:, None] - torch.arange(T)).clamp(min=0)
    for bias in (-1.0, 3.0):
        kept = 1 / (1 + math.exp(-bias))
        logits_HTT = (q[0].double() @ k[0].double().mT) / 8**0.5 * kept**gap_TT
        wanted_HTT = logits_HTT.masked_fill(torch.ones(T, T).triu(1) > 0, -torch.inf).softmax(-1)
        got_HTT = weights(set_gates(build_scheme("wall", DIMS), bias), q[0], k[0], x_BTD[0])
        torch.testing.assert_close(got_HTT.double(), wanted_HTT, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [-3.0, -30.0, -1000.0])
def test_wall_stays_finite_and_exact_with_strongly_negative_gates(bias: float) -> None:
    """8,192 tokens, whose log gates sum to 8 million: ratios of single factors would overflow."""
    dims = Dims(d_model=8, n_head=1, n_layer=1, train_length=64)
    scheme = set_gates(build_scheme("wall", dims), bias)
    given = [part * 3 if part.is_floating_point() else part for part in inputs(8192, dims)]
    single = first_block(scheme, *given)
    assert bool(single.isfinite().all())
    double = first_block(scheme.double(), *(part.double() if part.is_floating_point() else part for part in given))
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)


def test_wall_gates_of_both_signs_have_finite_gradients() -> None:
    q, k, v, pos_1T, x_BTD = inputs(200)
    scheme = build_scheme("wall", DIMS)
    with torch.no_grad():
        scheme.layer(0).gate.weight.normal_(std=30.0, generator=torch.Generator().manual_seed(1))
    leaves = [part.requires_grad_() for part in (q, k, v, x_BTD)]
    attention(scheme.layer(0), q, k, v, pos_1T, x_BTD).square().sum().backward()
    assert all(bool(part.grad.isfinite().all()) for part in (*leaves, *scheme.layer(0).parameters()))


@pytest.mark.parametrize("base", [100.0, 10_000.0])
def test_carope_starts_as_rope_with_the_exponents_of_its_paper(base: float) -> None:
    """Pair i = 1..C/2 turns by base^(-2i/C), so the frequency 1 of RoPE is missing."""
    q, k, v, pos_1T, x_BTD = inputs()
    rope = build_scheme("rope", DIMS, base=base)
    rope.rescale = lambda theta_I, tokens: theta_I * theta_I[1]
    wanted = first_block(rope, q, k, v, pos_1T, x_BTD)
    torch.testing.assert_close(first_block(build_scheme("carope", DIMS, base=base), q, k, v, pos_1T, x_BTD), wanted)


def test_carope_turns_by_what_the_tokens_between_say() -> None:
    """A head that stops at some tokens sees no distance across them."""
    scheme = build_scheme("carope", DIMS)
    with torch.no_grad():
        scheme.layer(0).first.weight[0, 0] = 1e6
    q, k, *_ = inputs(30)
    x_TD = torch.zeros(30, 16)
    x_TD[10:20, 0] = 1.0  # their f is about 1e-6
    q[:], k[:] = q[:, :, :1], k[:, :, :1]
    weight_TT = weights(scheme, q[0], k[0], x_TD)[0]
    torch.testing.assert_close(weight_TT[20, 9:19], weight_TT[20, 9].expand(10), rtol=1e-4, atol=0)
    assert abs(float(weight_TT[20, 8] / weight_TT[20, 9]) - 1) > 1e-2


def test_a_phase_of_one_makes_selective_rope_rope() -> None:
    q, k, v, pos_1T, _ = inputs()
    scheme = set_gates(build_scheme("selective_rope", DIMS, base=10_000.0), 100.0)
    with torch.no_grad():
        scheme.layer(0).direction_HCI.fill_(1.0)  # parallel to an input of ones, so the cosine is 1
    ones_1TD = torch.ones(1, T, 16)
    wanted = first_block(build_scheme("rope", DIMS), q, k, v, pos_1T, ones_1TD)
    torch.testing.assert_close(first_block(scheme, q, k, v, pos_1T, ones_1TD), wanted, rtol=1e-4, atol=1e-5)
    closed = set_gates(scheme, -1e4)
    plain = first_block(build_scheme("none", DIMS), q, k, v, pos_1T, ones_1TD)
    torch.testing.assert_close(first_block(closed, q, k, v, pos_1T, ones_1TD), plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wall", "carope"])
def test_the_nearest_keys_stay_exact_after_many_tokens(name: str) -> None:
    """Sums over 65,536 tokens, where float32 has steps of a thousandth; a window keeps the nearest keys."""
    dims = Dims(d_model=4, n_head=1, n_layer=1, train_length=64)
    scheme = set_gates(build_scheme(name, dims), -1.0)
    window, given = build_window("sliding", dims, size=8), inputs(65_536, dims)
    with torch.no_grad():
        single = attention(scheme.layer(0), *given, window)
        exact = [part.double() if part.is_floating_point() else part for part in given]
        double = attention(scheme.double().layer(0), *exact, window)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["carope", "selective_rope"])
def test_rotations_need_pairs_of_channels(name: str) -> None:
    with pytest.raises(Misuse, match="pairs of channels"):
        build_scheme(name, Dims(d_model=6, n_head=2, n_layer=1, train_length=64))


def fope(**options: float) -> Rope:
    part = build_scheme("fope", DIMS, **options).layer(0)
    assert isinstance(part, Rope)
    return part


def test_fope_without_noise_is_rope_with_its_low_frequencies_at_zero() -> None:
    """2 pi / 64 is 0.098: of the frequencies 1, 0.1, 0.01 and 0.001 of 8 channels, two remain."""
    q, k, _, pos_1T, _ = inputs()
    wanted = build_scheme("p_rope", DIMS, p=0.5).rotate(q, k, pos_1T)
    for got_BHTC, wanted_BHTC in zip(fope(gain=0.0).rotate(q, k, pos_1T), wanted, strict=True):
        torch.testing.assert_close(got_BHTC, wanted_BHTC)
    with pytest.raises(Misuse, match="at least 7"):
        build_scheme("fope", Dims(d_model=16, n_head=2, n_layer=1, train_length=6))


def test_fope_turns_by_sums_of_waves() -> None:
    part = fope()
    q, k, _, pos_1T, _ = inputs()
    (got_BHTC, _) = part.double().rotate(q.double(), k.double(), pos_1T)
    of_cos_HII, of_sin_HII = part.coefficients
    for head, position in ((0, 7), (1, 299)):
        a_I, b_I = q[0, head, position].double().split(4)
        for pair in range(4):
            cos = sum(of_cos_HII[head, n, pair] * math.cos(position * theta) for n, theta in enumerate((1, 0.1, 0, 0)))
            sin = sum(of_sin_HII[head, n, pair] * math.sin(position * theta) for n, theta in enumerate((1, 0.1, 0, 0)))
            found = got_BHTC[0, head, position, [pair, pair + 4]].tolist()
            wanted = [a_I[pair] * cos - b_I[pair] * sin, a_I[pair] * sin + b_I[pair] * cos]
            assert found == pytest.approx([float(value) for value in wanted], abs=1e-9)


def test_fope_draws_coefficients_that_it_keeps_and_does_not_train() -> None:
    scheme = build_scheme("fope", Dims(d_model=512, n_head=8, n_layer=2, train_length=512))
    assert not list(scheme.parameters()) and not scheme.relative and scheme.prefix_stable
    first, second = scheme.state_dict().values()
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    noise_2HII = first - torch.eye(32)
    kept = 16  # frequencies of 64 channels with a period of at most 512 tokens
    assert not noise_2HII[..., kept:, :].any() and not noise_2HII[..., kept:].any()
    assert bool((noise_2HII[..., kept - 1, kept - 1] != 0).all())
    spread = 0.3 * math.sqrt(2 / (kept * kept + 8 * kept))
    assert float(noise_2HII[..., :kept, :kept].std()) == pytest.approx(spread, rel=0.05)


def test_random_floats_are_sorted_real_numbers_from_the_whole_range() -> None:
    scheme = build_scheme("randomized", DIMS, factor=4.0, floats=True).train()
    torch.manual_seed(0)
    pos_BT = scheme.positions(500, 9, torch.device("cpu"))
    assert bool((pos_BT.diff() >= 0).all()) and bool((pos_BT != pos_BT.floor()).any())
    share_X = pos_BT.flatten() / 256
    assert 0 <= float(share_X.min()) < 0.01 and 0.99 < float(share_X.max()) < 1
    assert float(share_X.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(share_X.std()) == pytest.approx(12**-0.5, abs=0.01)  # of a uniform distribution


@pytest.mark.parametrize("length", [1, 64, 600])
def test_random_floats_are_spaced_evenly_at_evaluation_at_any_length(length: int) -> None:
    scheme = build_scheme("randomized", DIMS, factor=4.0, floats=True, at_evaluation=False).eval()
    pos_T = scheme.positions(1, length, torch.device("cpu"))[0]
    wanted = [256 * (2 * i - 1) / (2 * max(64, length)) for i in range(1, length + 1)]  # the paper's, times the range
    assert pos_T.tolist() == pytest.approx(wanted)
    assert scheme.max_length is None and not scheme.prefix_stable


def test_distances_of_random_floats_are_those_of_positions_at_evaluation_too() -> None:
    scheme = build_scheme("randomized", DIMS, factor=4.0, floats=True, at_evaluation=False, inner="alibi").eval()
    q, k, v, _, x_BTD = inputs()
    pos_1T = scheme.positions(1, T, torch.device("cpu"))
    logits_HTT = q[0] @ k[0].mT / 8**0.5 - torch.tensor([2**-4, 2**-8])[:, None, None] * (
        (torch.arange(T)[:, None] - torch.arange(T)) * 256 / T
    )
    wanted_HTC = logits_HTT.masked_fill(torch.ones(T, T).triu(1) > 0, -torch.inf).softmax(-1) @ v[0]
    torch.testing.assert_close(first_block(scheme, q, k, v, pos_1T, x_BTD)[0], wanted_HTC, rtol=1e-4, atol=1e-5)


def test_random_integers_keep_their_names() -> None:
    node = {"_target_": "posexp.schemes.randomized.Randomized", "factor": 16.0, "at_evaluation": True}
    assert lean({**node, "floats": False}) == node
    assert lean({**node, "floats": True}) == {**node, "floats": True}
    assert "real numbers" not in build_scheme("randomized", DIMS).fingerprint()
    assert "real numbers" in build_scheme("randomized", DIMS, floats=True).fingerprint()


def test_paths_of_attention() -> None:
    names = {name: kernel_path(build_scheme(name, DIMS), DIMS) for name in ("fope", "inkling", "wall", "carope")}
    assert names == {"fope": "sdpa causal", "inkling": "scheme", "wall": "scheme", "carope": "scheme"}
