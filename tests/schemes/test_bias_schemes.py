"""Schemes that add to the logits or to the embeddings a plain function of positions: their exact values.

Formulas are written out here in float64 and otherwise than in the schemes.
Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head, N distances, Q query
positions, K key positions, U buckets.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from posexp import windows
from posexp.attention import attention, kernel_path
from posexp.config.components import lean
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.alibi import Alibi, alibi_slopes
from posexp.schemes.binary import Binary
from posexp.schemes.cpb import ContinuousBias
from posexp.schemes.fire import Fire
from posexp.schemes.kerple import Kerple
from posexp.schemes.t5 import T5, bucketed, t5_edges

DIMS = Dims(d_model=32, n_head=4, n_layer=2, train_length=64)
GAPS = torch.tensor([0, 1, 2, 3, 10, 63, 64, 100, 1000, 16_384])
BY_DISTANCE: list[tuple[str, dict[str, Any]]] = [
    ("alibi", {}),
    ("alibi", {"learned": True, "share": 0.5}),
    ("t5", {}),
    ("kerple_log", {}),
    ("kerple_power", {}),
    ("sandwich", {}),
    ("cpb", {}),
    ("cpb", {"log_distance": False}),
]
BIASES = [*BY_DISTANCE, ("fire", {})]


def drawn(name: str, **options: Any) -> Scheme:
    """A scheme of known weights."""
    torch.manual_seed(3)
    return build_scheme(name, DIMS, **options)


def by_distance(scheme: Scheme, gap_N: Tensor = GAPS) -> Tensor:
    bias_HN = scheme.distance_bias(gap_N)
    assert bias_HN is not None
    assert bias_HN.dtype == torch.float32
    assert bias_HN.shape == (DIMS.n_head, len(gap_N))
    return bias_HN


def reference_bucket(gap_N: Tensor, buckets: int, max_distance: int, kind: torch.dtype) -> Tensor:
    """By logarithms, rounded down, as Mesh TensorFlow and its descendants do."""
    exact = buckets // 2
    share_N = (gap_N.to(kind).clamp(min=1) / exact).log() / math.log(max_distance / exact)
    far_N = (exact + (share_N * (buckets - exact)).long()).clamp(max=buckets - 1)
    return torch.where(gap_N < exact, gap_N, far_N)


def test_t5_buckets_begin_at_these_distances() -> None:
    edges = [*range(1, 17), 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
    assert t5_edges(32, 128) == edges
    gap_N = torch.arange(20_000)
    bucket_N = bucketed(gap_N, t5_edges(32, 128))
    assert bucket_N.dtype == torch.int64
    assert gap_N[bucket_N.diff(prepend=torch.tensor([-1])) > 0].tolist() == [0, *edges]
    assert bucket_N[[0, 112, 113, 128, 19_999]].tolist() == [0, 30, 31, 31, 31]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 64), (32, 1000), (5, 20), (2, 8)])
def test_t5_buckets_are_those_of_the_logarithm_in_either_precision(
    buckets: int, max_distance: int, kind: torch.dtype
) -> None:
    gap_N = torch.arange(5000)
    assert torch.equal(
        bucketed(gap_N, t5_edges(buckets, max_distance)), reference_bucket(gap_N, buckets, max_distance, kind)
    )


def test_t5_edges_are_whole_where_a_rounded_logarithm_falls_short() -> None:
    """E, E r, E r^2 and so on for a whole ratio r between edges: each begins a bucket."""
    for ratio in (2, 3, 5):
        edges = t5_edges(14, 7 * ratio**7)
        assert edges[7:] == [7 * ratio**j for j in range(1, 7)]
    gap_N = 7 * 5 ** torch.arange(1, 7)
    assert bucketed(gap_N, t5_edges(14, 7 * 5**7)).tolist() == [8, 9, 10, 11, 12, 13]
    assert bucketed(gap_N - 1, t5_edges(14, 7 * 5**7)).tolist() == [7, 8, 9, 10, 11, 12]


def test_t5_reads_its_table_by_bucket_and_head() -> None:
    scheme = drawn("t5")
    assert isinstance(scheme, T5)
    assert [name for name, _ in scheme.named_parameters()] == ["table_UH"]
    assert all(scheme.layer(index) is scheme for index in range(DIMS.n_layer))
    for n, bucket in enumerate([0, 1, 2, 3, 10, 26, 26, 30, 31, 31]):
        torch.testing.assert_close(by_distance(scheme)[:, n], scheme.table_UH[bucket] * scheme.dims.head_dim**0.5)


def test_t5_starts_small_beside_the_logits() -> None:
    torch.manual_seed(0)
    scheme = build_scheme("t5", Dims(d_model=256, n_head=16, n_layer=1, train_length=64))
    assert scheme.distance_bias(torch.arange(128)).std().item() == pytest.approx(1 / 16, rel=0.15)


def kerple(name: str, r1: list[float], r2: list[float]) -> Kerple:
    scheme = drawn(name)
    assert isinstance(scheme, Kerple)
    with torch.no_grad():
        scheme.r1_H.copy_(torch.tensor(r1))
        scheme.r2_H.copy_(torch.tensor(r2))
    return scheme


def test_kerple_log_is_its_formula() -> None:
    got_HN = by_distance(kerple("kerple_log", [0.3, 1.7, 0.02, 5.0], [0.9, 0.05, 3.0, 0.01])).tolist()
    for r1, r2, got_N in zip([0.3, 1.7, 0.02, 5.0], [0.9, 0.05, 3.0, 0.01], got_HN, strict=True):
        assert got_N == pytest.approx([math.log((1 + r2 * gap) ** -r1) for gap in GAPS.tolist()], rel=1e-5)


def test_kerple_power_is_its_formula() -> None:
    got_HN = by_distance(kerple("kerple_power", [0.3, 1.7, 0.02, 5.0], [1.0, 0.5, 2.0, 0.01])).tolist()
    for r1, r2, got_N in zip([0.3, 1.7, 0.02, 5.0], [1.0, 0.5, 2.0, 0.01], got_HN, strict=True):
        assert got_N == pytest.approx([-r1 * math.pow(gap, r2) for gap in GAPS.tolist()], rel=1e-5)


@pytest.mark.parametrize(("name", "most"), [("kerple_log", 7.0), ("kerple_power", 2.0)])
def test_kerple_parameters_out_of_bounds_count_as_the_bound(name: str, most: float) -> None:
    outside = kerple(name, [-1.0, 0.0, 0.5, 7.0], [0.5, -3.0, 0.0, 7.0])
    inside = kerple(name, [0.01, 0.01, 0.5, 7.0], [0.5, 0.01, 0.01, most])
    assert torch.equal(by_distance(outside), by_distance(inside))


@pytest.mark.parametrize("name", ["kerple_log", "kerple_power"])
def test_kerple_parameters_are_put_back_where_they_have_a_gradient(name: str) -> None:
    scheme = kerple(name, [-1.0, 0.0, 0.5, 7.0], [0.5, -3.0, 0.0, 9.0])
    scheme.progress(0.1)
    inside = kerple(name, [0.01, 0.01, 0.5, 7.0], [0.5, 0.01, 0.01, 2.0 if name == "kerple_power" else 9.0])
    assert torch.equal(scheme.r1_H, inside.r1_H)
    assert torch.equal(scheme.r2_H, inside.r2_H)
    by_distance(scheme).sum().backward()
    for parameter_H in (scheme.r1_H, scheme.r2_H):
        assert parameter_H.grad is not None
        assert bool((parameter_H.grad != 0).all())


@pytest.mark.parametrize("r2", [0.01, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", ["kerple_log", "kerple_power"])
def test_the_gradient_of_kerple_is_finite_at_distance_0(name: str, r2: float) -> None:
    scheme = kerple(name, [0.5] * 4, [r2] * 4)
    by_distance(scheme, torch.tensor([0])).sum().backward()
    for parameter_H in (scheme.r1_H, scheme.r2_H):
        assert parameter_H.grad is not None
        assert torch.equal(parameter_H.grad, torch.zeros(4))


@pytest.mark.parametrize(("name", "r1", "r2"), [("kerple_log", 2.0, 1.0), ("kerple_power", 1.0, 2.0)])
def test_kerple_parameters_are_drawn_as_their_authors_do(name: str, r1: float, r2: float) -> None:
    torch.manual_seed(0)
    scheme = build_scheme(name, Dims(d_model=512, n_head=512, n_layer=1, train_length=64))
    for parameter_H, widest in ((scheme.r1_H, r1), (scheme.r2_H, r2)):
        assert 0 <= parameter_H.min().item() < 0.02 * widest
        assert 0.98 * widest < parameter_H.max().item() <= widest
        assert parameter_H.mean().item() == pytest.approx(widest / 2, rel=0.1)


@pytest.mark.parametrize(("name", "r1", "r2"), [("kerple_log", 1.0, 0.5), ("kerple_power", 0.5, 1.0)])
def test_kerple_can_start_at_the_mean_of_its_draws(name: str, r1: float, r2: float) -> None:
    one, other = drawn(name, init="fixed"), build_scheme(name, DIMS, init="fixed")  # at another state of the generator
    for scheme in (one, other):
        assert isinstance(scheme, Kerple)
        assert scheme.r1_H.tolist() == [r1] * DIMS.n_head and scheme.r2_H.tolist() == [r2] * DIMS.n_head
    assert "init=fixed" in one.fingerprint() and "init" not in drawn(name).fingerprint()


def test_t5s_scale_changes_the_table_and_not_the_first_biases() -> None:
    usual, small = drawn("t5"), drawn("t5", table_scale=1.0)
    torch.manual_seed(3)
    table_UH = torch.randn(32, DIMS.n_head) * (DIMS.d_model * DIMS.head_dim) ** -0.5
    assert torch.equal(usual.table_UH, table_UH) and usual.factor == DIMS.head_dim**0.5
    torch.testing.assert_close(small.table_UH, DIMS.head_dim**0.5 * table_UH)
    torch.testing.assert_close(by_distance(small), by_distance(usual))
    with pytest.raises(Misuse, match=r"scheme\.table_scale=0\.0 must be above 0"):
        drawn("t5", table_scale=0.0)


@pytest.mark.parametrize(
    ("name", "length", "note"),
    [
        ("xpos", 128, "xPos's scale_base=512 belongs to a training length of 1024"),
        ("t5", 128, "the last bucket has 12% of its distances"),
        ("t5", 1024, "the last bucket has 89% of its distances"),
        ("t5", 64, "the last bucket has 0% of its distances"),
        ("alibi", 64, "ALiBi's steepest slope is 0.25 with 4 heads, and 0.5 with its paper's 8"),
        ("pose", 128, "Pose has positions up to 2048 in training"),
        ("randomized", 128, "Randomized has positions up to 2048 in training"),
    ],
)
def test_constants_of_another_length_are_noted(name: str, length: int, note: str) -> None:
    (found,) = build_scheme(name, replace(DIMS, train_length=length)).notes()
    assert note in found


@pytest.mark.parametrize(
    ("name", "dims", "options"),
    [
        ("xpos", replace(DIMS, train_length=1024), {}),
        ("xpos", DIMS, {"scale_base": 32.0}),
        ("t5", replace(DIMS, train_length=512), {}),
        ("alibi", replace(DIMS, n_head=8), {}),
        ("rope", DIMS, {}),
    ],
)
def test_constants_of_the_papers_ratio_are_not_noted(name: str, dims: Dims, options: dict[str, Any]) -> None:
    assert build_scheme(name, dims, **options).notes() == []


def test_a_wrapper_notes_what_its_inner_scheme_does() -> None:
    assert build_scheme("pose", DIMS, inner="alibi").notes()[1:] == build_scheme("alibi", DIMS).notes() != []


def test_sandwich_is_the_inner_product_of_sinusoids_without_the_fastest() -> None:
    """Both positions' sines and cosines multiplied out, less what the product is at distance 0, over 8h / H."""
    C = 8
    got_HN = by_distance(drawn("sandwich")).tolist()
    for h, got_N in enumerate(got_HN, start=1):
        for gap, got in zip(GAPS.tolist(), got_N, strict=True):
            here, there = 5, 5 + gap
            product = 0.0
            for i in range(1, C // 2 + 1):
                wave = 10_000 ** (2 * i / C)
                product += math.sin(here / wave) * math.sin(there / wave) + math.cos(here / wave) * math.cos(
                    there / wave
                )
            assert got == pytest.approx((product - C / 2) / (8 * h / 4), abs=1e-6)


def test_sandwich_anchors() -> None:
    """At distance 1 for C = 8: cos 0.1 + cos 0.01 + cos 0.001 + cos 0.0001 - 4, halved for the first of four heads."""
    assert by_distance(drawn("sandwich"))[:, 1].tolist() == pytest.approx(
        [-0.0025231674, -0.0012615837, -0.0008410558, -0.0006307919], rel=1e-5
    )
    assert by_distance(drawn("sandwich"))[:, 0].tolist() == [0.0] * 4


def test_sandwich_has_no_parameters_and_needs_pairs_of_channels() -> None:
    assert not drawn("sandwich").state_dict()
    with pytest.raises(Misuse, match="a head's 7"):
        build_scheme("sandwich", Dims(d_model=14, n_head=2, n_layer=1, train_length=64))


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


@pytest.mark.parametrize("log_distance", [True, False])
def test_cpb_is_its_network_of_distance(log_distance: bool) -> None:
    scheme = drawn("cpb", log_distance=log_distance)
    assert isinstance(scheme, ContinuousBias)
    weights = [weight.detach().double() for weight in scheme.parameters()]
    assert [tuple(weight.shape) for weight in weights] == [(8, 1), (8,), (8, 8), (8,), (4, 8), (4,)]
    for gap, got_H in zip(GAPS.tolist(), by_distance(scheme).detach().T, strict=True):
        x = torch.tensor([math.log(1 + gap) if log_distance else float(gap)], dtype=torch.float64)
        wanted_H = weights[4] @ silu(weights[2] @ silu(weights[0] @ x + weights[1]) + weights[3]) + weights[5]
        torch.testing.assert_close(got_H.double(), wanted_H, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("log_distance", [True, False])
@pytest.mark.parametrize("train_length", [64, 2048])
def test_cpb_can_learn_at_any_distance(log_distance: bool, train_length: int) -> None:
    """It starts with weak preferences within the training length, and has gradients out to 16,384."""
    for seed in range(5):
        torch.manual_seed(seed)
        scheme = build_scheme("cpb", Dims(128, 4, 2, train_length), log_distance=log_distance)
        near_HN = by_distance(scheme, torch.arange(train_length))
        assert 0.001 < (near_HN.amax(1) - near_HN.amin(1)).max().item() < 3
        far_HN = by_distance(scheme, torch.arange(16_385))
        far_HN.log_softmax(-1)[:, 16_384].sum().backward()
        for weight in scheme.parameters():
            assert weight.grad is not None
            assert bool(weight.grad.isfinite().all())
        # the last layer's bias moves a head's logits all alike
        assert all(bool(weight.grad.any()) for name, weight in scheme.named_parameters() if name != "mlp.4.bias")


def fire_by_hand(scheme: Fire, query: int, key: int) -> Tensor:
    """[H] float64, in logarithms of a quotient's terms rather than through log1p."""
    first, last = scheme.mlp[0], scheme.mlp[2]
    c, threshold = scheme.c.item(), scheme.threshold.item() * DIMS.train_length
    share = math.log(c * (query - key) + 1) / (math.log(c * max(threshold, query) + 1) + 1e-6)
    hidden = (first.weight.detach().double()[:, 0] * share + first.bias.detach().double()).clamp(min=0)
    return last.weight.detach().double() @ hidden + last.bias.detach().double()


def fire(c: float = 0.1, threshold: float = 1.0) -> Fire:
    scheme = drawn("fire")
    assert isinstance(scheme, Fire)
    with torch.no_grad():
        scheme.c.fill_(c)
        scheme.threshold.fill_(threshold)
    return scheme


@pytest.mark.parametrize(("c", "threshold"), [(0.1, 1.0), (3.0, 0.25), (0.01, 2.5)])
def test_fire_is_its_formula(c: float, threshold: float) -> None:
    scheme = fire(c, threshold)
    queries, keys = [0, 1, 15, 16, 17, 63, 64, 65, 160, 5000], [0, 1, 15, 64, 150]
    bias_1HQK = scheme.bias(torch.tensor([queries]), torch.tensor([keys]))
    assert bias_1HQK.dtype == torch.float32
    assert bias_1HQK.shape == (1, 4, len(queries), len(keys))
    for q, query in enumerate(queries):
        for k, key in enumerate(keys):
            if key <= query:
                got_H = bias_1HQK[0, :, q, k].detach().double()
                torch.testing.assert_close(got_H, fire_by_hand(scheme, query, key), rtol=1e-5, atol=1e-5)


def test_the_smaller_network_of_fire_gives_the_same_on_its_shares() -> None:
    scheme = fire().double()
    share_BQK = torch.linspace(0, 0.9, 50).double().view(1, 5, 10)
    w_W1, b_W1, out_HW, out_H1 = scheme.network(share_BQK)
    assert len(w_W1) < scheme.mlp[0].out_features
    small_HN = out_H1 + out_HW @ (b_W1 + w_W1 * share_BQK.flatten()).relu()
    full_HN = scheme.mlp(share_BQK.flatten()[:, None]).T
    torch.testing.assert_close(small_HN, full_HN)
    slope_HN = torch.linspace(-1, 2, full_HN.numel()).double().view(full_HN.shape)
    weights = list(scheme.mlp.parameters())
    for got, wanted in zip(
        *(torch.autograd.grad((x * slope_HN).sum(), weights) for x in (small_HN, full_HN)), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_fire_starts_with_the_training_length_as_its_threshold() -> None:
    scheme = drawn("fire")
    assert scheme.c.item() == pytest.approx(0.1)
    assert scheme.threshold.item() == 1.0
    assert {name for name, _ in scheme.named_parameters()} == {
        "c",
        "threshold",
        *(f"mlp.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")),
    }


def test_fire_sees_distance_alone_below_the_threshold_and_shares_of_the_input_above() -> None:
    scheme, pos_BQ = fire(), torch.arange(20)[None]
    here, shifted, far = (scheme.bias(pos_BQ + by, pos_BQ + by).tril() for by in (0, 45, 46))
    assert torch.equal(here, shifted)
    assert not torch.equal(here, far)
    first_1HQ1 = scheme.bias(torch.tensor([[64, 100, 1000, 16_384]]), torch.tensor([[0]]))
    torch.testing.assert_close(first_1HQ1, first_1HQ1[:, :, :1].expand_as(first_1HQ1), rtol=0, atol=1e-6)


def test_fire_learns_its_threshold_within_the_training_length() -> None:
    scheme, pos_BQ = fire(), torch.arange(DIMS.train_length)[None]
    scheme.bias(pos_BQ, pos_BQ).square().sum().backward()
    assert scheme.threshold.grad is not None and scheme.threshold.grad.item() != 0
    assert scheme.c.grad is not None and scheme.c.grad.item() != 0


@pytest.mark.parametrize("n_head", [1, 2, 6, 8, 12, 16, 20])
def test_fixed_alibi_slopes_are_the_very_numbers_they_always_were(n_head: int) -> None:
    dims = Dims(d_model=2 * n_head, n_head=n_head, n_layer=1, train_length=64)
    scheme, gap_N = build_scheme("alibi", dims), torch.arange(5000)
    wanted_HN = -torch.tensor(alibi_slopes(n_head), dtype=torch.float32)[:, None] * gap_N
    assert torch.equal(scheme.distance_bias(gap_N), wanted_HN)
    assert not scheme.state_dict()
    node = {"_target_": "posexp.schemes.alibi.Alibi"}
    assert lean({**node, "learned": False, "share": 1.0}) == node


def test_a_share_of_alibi_heads_has_the_slopes_of_so_many_heads() -> None:
    bias_HN = by_distance(drawn("alibi", share=0.5), torch.tensor([0, 1, 64]))
    assert bias_HN.tolist() == [[0, -0.0625, -4], [0, -0.00390625, -0.25], [0, 0, 0], [0, 0, 0]]
    assert "2 of 4 heads" in drawn("alibi", share=0.5).fingerprint()
    for share in (0.0, -0.5, 1.5, 0.1):
        with pytest.raises(Misuse, match=r"scheme\.share="):
            drawn("alibi", share=share)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_learned_alibi_starts_at_the_fixed_slopes_and_moves(share: float) -> None:
    scheme, fixed = drawn("alibi", learned=True, share=share), drawn("alibi", share=share)
    assert isinstance(scheme, Alibi)
    assert torch.equal(by_distance(scheme), by_distance(fixed))
    assert {name: len(weight) for name, weight in scheme.named_parameters()} == {"slope_H": int(4 * share)}
    assert "learned" in scheme.fingerprint() and "learned" not in fixed.fingerprint()
    optimizer = torch.optim.SGD(scheme.parameters(), lr=0.01)
    by_distance(scheme, torch.tensor([0, 3])).sum().backward()  # falls by 3 as a slope rises by 1
    optimizer.step()
    assert scheme.slope_H is not None
    moved_H = scheme.slope_H - torch.tensor(alibi_slopes(int(4 * share)))
    torch.testing.assert_close(moved_H, torch.full_like(moved_H, 0.03), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), BIASES)
@pytest.mark.parametrize("size", [None, 5])
def test_attention_adds_a_bias_to_the_keys_in_the_window(name: str, options: dict[str, Any], size: int | None) -> None:
    """Against a softmax written out with the bias of every pair of tokens."""
    T, H, C = 40, DIMS.n_head, DIMS.head_dim
    scheme = drawn(name, **options)
    with torch.no_grad():
        for weight in scheme.parameters():
            weight.mul_(3)  # so that a bias left out or added twice shows
        q_BHTC, k_BHTC, v_BHTC = torch.randn(3, 2, H, T, C, generator=torch.Generator().manual_seed(2))
        window = windows.Window(DIMS) if size is None else windows.build_window("sliding", DIMS, size=size)
        pos_BT, x_BTD = torch.arange(T)[None], torch.zeros(2, T, DIMS.d_model)
        got_BHTC = attention(scheme, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)
        gap_TT = pos_BT[0, :, None] - pos_BT[0]
        bias_HTT = scheme.bias(pos_BT, pos_BT)
        bias_HTT = by_distance(scheme, torch.arange(T))[:, gap_TT.clamp(min=0)] if bias_HTT is None else bias_HTT[0]
        hidden_TT = (gap_TT < 0) | (gap_TT >= (size or T))
        logits_BHTT = torch.einsum("bhqc,bhkc->bhqk", q_BHTC, k_BHTC).double() / C**0.5 + bias_HTT.double()
        wanted_BHTC = logits_BHTT.masked_fill(hidden_TT, -torch.inf).softmax(-1) @ v_BHTC.double()
    torch.testing.assert_close(got_BHTC.double(), wanted_BHTC, rtol=0, atol=1e-5)


def test_a_function_of_distance_takes_the_fast_path_and_fire_the_general_one() -> None:
    for name, options in BY_DISTANCE:
        scheme = drawn(name, **options)
        assert kernel_path(scheme, DIMS) == "sdpa distance view"
        assert scheme.relative
    assert kernel_path(drawn("fire"), DIMS) == "sdpa bias blocks"
    assert not drawn("fire").relative


def added(scheme: Scheme, pos_BT: Tensor, value: float = 0.5) -> Tensor:
    x_BTD = torch.full((len(pos_BT), pos_BT.shape[1], DIMS.d_model), value)
    return scheme.embed(x_BTD, pos_BT) - value


def test_integer_adds_the_position_to_every_channel() -> None:
    got_BTD = added(drawn("integer"), torch.tensor([[0, 1, 2, 1000], [7, 5, 16_384, 0]]))
    assert got_BTD[0].tolist() == [[p] * 32 for p in (0, 1, 2, 1000)]
    assert got_BTD[1].tolist() == [[p] * 32 for p in (7, 5, 16_384, 0)]


def test_normalized_adds_the_share_of_the_input_to_every_channel() -> None:
    scheme = drawn("normalized")
    got_BTD = added(scheme, torch.tensor([[0, 1, 2, 4], [8, 2, 1, 0]]))
    assert got_BTD[0].tolist() == [[share] * 32 for share in (0, 0.25, 0.5, 1)]
    assert got_BTD[1].tolist() == [[share] * 32 for share in (1, 0.25, 0.125, 0)]
    assert added(scheme, torch.tensor([[0]])).tolist() == [[[0.0] * 32]]
    assert not scheme.prefix_stable


def test_binary_adds_the_digits_of_the_position() -> None:
    scheme = drawn("binary", bits=5)
    assert isinstance(scheme, Binary)
    assert scheme.max_length == 32
    for p in (0, 1, 2, 13, 31):
        digits = [float(digit) for digit in reversed(f"{p:05b}")]
        assert added(scheme, torch.tensor([[p]]))[0, 0].tolist() == (digits * 7)[:32]
    assert torch.equal(added(scheme, torch.tensor([[13.9]])), added(scheme, torch.tensor([[13]])))
    codes = {tuple(code) for code in added(scheme, torch.arange(32)[None])[0].tolist()}
    assert len(codes) == 32


@pytest.mark.parametrize("bits", [0, -1, 33, 63])
def test_binary_needs_a_channel_for_every_digit(bits: int) -> None:
    with pytest.raises(Misuse, match=rf"scheme\.bits={bits} must be from 1 to 32"):
        drawn("binary", bits=bits)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("t5", {"buckets": 1}, "scheme.buckets=1"),
        ("t5", {"buckets": 32, "max_distance": 16}, "scheme.max_distance=16"),
        ("fire", {"width": 0}, "scheme.width=0"),
    ],
)
def test_sizes_that_make_no_scheme_are_refused(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        drawn(name, **options)


def test_cpb_needs_a_network_of_some_width() -> None:
    with pytest.raises(Misuse, match="d_model=2"):
        build_scheme("cpb", Dims(d_model=2, n_head=1, n_layer=1, train_length=64))
