"""The rotary family: layouts, several axes, p-RoPE and PoPE, against formulas written out in float64.

Shape suffixes: B batch, T tokens, A axes, H heads, C channels of a head, I rotated pairs of channels.
"""

import math

import pytest
import torch
from torch import Tensor

from posexp import transforms
from posexp.attention import attention
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.rope import Layout, rotary_frequencies, rotate_nd, rotate_pairs
from posexp.windows import Window

DIMS = Dims(d_model=24, n_head=2, n_layer=2, train_length=64)  # 12 channels a head
POSITIONS = torch.tensor([[0, 1, 2, 3, 17, 64, 255, 1000]])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def query_and_key(C: int, T: int = POSITIONS.shape[1]) -> tuple[Tensor, Tensor]:
    return drawn(1, 2, T, C, seed=1), drawn(1, 2, T, C, seed=2)


def logits(scheme: Scheme, pos_BT: Tensor = POSITIONS) -> Tensor:
    """[B, H, T, T] float64, not scaled, with other content at every position."""
    q_BHTC, k_BHTC = scheme.rotate(*query_and_key(DIMS.head_dim), pos_BT)
    assert q_BHTC.dtype == torch.float64
    return q_BHTC @ k_BHTC.transpose(-1, -2)


def logits_of_pairs(q_BHTC: Tensor, k_BHTC: Tensor, theta_I: Tensor, pos_BT: Tensor = POSITIONS) -> Tensor:
    """The same from complex numbers: pair (i, i + I) is one, and turning multiplies it."""
    turn_BTI = torch.polar(torch.ones(()).double(), pos_BT[..., None].double() * theta_I)[:, None]
    I = len(theta_I)
    q_BHTI = torch.complex(q_BHTC[..., :I], q_BHTC[..., I : 2 * I]) * turn_BTI
    k_BHTI = torch.complex(k_BHTC[..., :I], k_BHTC[..., I : 2 * I]) * turn_BTI
    return (q_BHTI @ k_BHTI.conj().transpose(-1, -2)).real


def theta(C: int, base: float = 10000.0) -> Tensor:
    return base ** (-2 * torch.arange(C // 2, dtype=torch.float64) / C)


@pytest.mark.parametrize(
    ("name", "options"),
    [("rope", {}), ("rope", {"fraction": 0.5}), ("xpos", {}), ("xpos", {"fraction": 0.5}), ("p_rope", {"p": 0.5})],
)
def test_layouts_are_the_same_up_to_a_permutation_of_channels(name: str, options: dict) -> None:
    half = build_scheme(name, DIMS, layout="half", **options)
    interleaved = build_scheme(name, DIMS, layout="interleaved", **options)
    R = half.rotary_dim
    order_C = [*torch.arange(R).view(2, -1).T.flatten().tolist(), *range(R, DIMS.head_dim)]  # 0, R/2, 1, R/2 + 1, ...
    q_BHTC, k_BHTC = query_and_key(DIMS.head_dim)
    in_halves = half.rotate(q_BHTC, k_BHTC, POSITIONS)
    in_turn = interleaved.rotate(q_BHTC[..., order_C], k_BHTC[..., order_C], POSITIONS)
    for one_BHTC, other_BHTC in zip(in_halves, in_turn, strict=True):
        assert torch.equal(one_BHTC[..., order_C], other_BHTC)
        assert not torch.allclose(one_BHTC, other_BHTC)


def test_rope_is_multiplication_by_complex_numbers() -> None:
    wanted_BHTT = logits_of_pairs(*query_and_key(DIMS.head_dim), theta(DIMS.head_dim))
    torch.testing.assert_close(logits(build_scheme("rope", DIMS)), wanted_BHTT, rtol=0, atol=1e-10)


def test_one_axis_is_ordinary_rope() -> None:
    x_BHTC = drawn(2, 3, 5, 12)
    pos_BT = torch.tensor([[0, 1, 2, 5, 90], [3, 1, 4, 1, 5]])
    for layout in Layout:
        wanted_BHTC = rotate_pairs(x_BHTC, pos_BT[..., None] * rotary_frequencies(12, 100.0).double(), layout=layout)
        torch.testing.assert_close(rotate_nd(x_BHTC, pos_BT[..., None], 100.0, layout), wanted_BHTC, rtol=0, atol=1e-5)


def grid() -> Tensor:
    """Rows, columns and depths of 8 places, [1, 8, 3]."""
    return torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2))[None] * torch.tensor([3, 1, 7])


@pytest.mark.parametrize("layout", list(Layout))
def test_with_several_axes_a_logit_depends_on_the_difference_along_each(layout: Layout) -> None:
    q_BHTC, k_BHTC = query_and_key(12)

    def logits_at(q_pos_BTA: Tensor, k_pos_BTA: Tensor) -> Tensor:
        q, k = rotate_nd(q_BHTC, q_pos_BTA, 100.0, layout), rotate_nd(k_BHTC, k_pos_BTA, 100.0, layout)
        return q @ k.transpose(-1, -2)

    here_BHTT = logits_at(grid(), grid())
    for axis in range(3):
        shift_A = torch.zeros(3, dtype=torch.long)
        shift_A[axis] = 11
        torch.testing.assert_close(logits_at(grid() + shift_A, grid() + shift_A), here_BHTT, rtol=0, atol=1e-9)
        assert not torch.allclose(logits_at(grid() + shift_A, grid()), here_BHTT, atol=0.1)


@pytest.mark.parametrize("axis", range(3))
def test_the_channels_of_an_axis_ignore_the_other_coordinates(axis: int) -> None:
    x_BHTC = drawn(1, 2, 8, 12)
    moved_BTA = grid()
    moved_BTA[..., axis] += 5
    changed_C = (rotate_nd(x_BHTC, moved_BTA, 100.0) != rotate_nd(x_BHTC, grid(), 100.0)).any((0, 1, 2))
    assert changed_C.nonzero().flatten().tolist() == list(range(4 * axis, 4 * axis + 4))


def test_channels_that_do_not_divide_among_the_axes_are_refused() -> None:
    with pytest.raises(Misuse, match="12 channels do not divide into pairs for 4 axes"):
        rotate_nd(drawn(1, 1, 2, 12), torch.zeros(1, 2, 4), 100.0)


@pytest.mark.parametrize(("p", "kept"), [(1.0, 6), (0.95, 5), (0.75, 4), (0.5, 3), (0.2, 1)])
def test_p_rope_turns_the_highest_frequencies_of_the_full_head(p: float, kept: int) -> None:
    """Those of a partial RoPE would be spaced over the rotated channels alone."""
    scheme = build_scheme("p_rope", DIMS, p=p)
    theta_I = theta(DIMS.head_dim)
    theta_I[kept:] = 0
    torch.testing.assert_close(scheme.trained_frequencies(POSITIONS.device, torch.float64), theta_I, rtol=1e-14, atol=0)
    wanted_BHTT = logits_of_pairs(*query_and_key(DIMS.head_dim), theta_I)
    torch.testing.assert_close(logits(scheme), wanted_BHTT, rtol=0, atol=1e-10)


def test_p_rope_leaves_the_other_channels_alone() -> None:
    q_BHTC, k_BHTC = query_and_key(DIMS.head_dim)
    turned_BHTC, _ = build_scheme("p_rope", DIMS, p=0.5).rotate(q_BHTC, k_BHTC, POSITIONS)
    same_C = (turned_BHTC == q_BHTC).all(2).all(0).all(0)
    assert same_C.tolist() == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3


def test_all_of_p_rope_is_rope_bit_for_bit() -> None:
    assert torch.equal(logits(build_scheme("p_rope", DIMS, p=1.0)), logits(build_scheme("rope", DIMS)))


@pytest.mark.parametrize("p", [0.0, 0.1, 1.2, -0.5])
def test_a_share_that_keeps_no_frequency_or_too_many_is_refused(p: float) -> None:
    with pytest.raises(Misuse, match=f"p={p:g} keeps"):
        build_scheme("p_rope", DIMS, p=p)


def pope(phase_HC: Tensor) -> Scheme:
    scheme = build_scheme("pope", DIMS).double()
    with torch.no_grad():
        scheme.phase_HC.copy_(phase_HC)
    return scheme


def test_pope_is_its_formula() -> None:
    """sum over c of softplus(q_c) softplus(k_c) cos((m - n) base^(-c/C) - phase_c), phases within [-2 pi, 0]."""
    phase_HC = -3 + 3 * drawn(2, DIMS.head_dim, seed=3)
    assert float(phase_HC.max()) > 0 and float(phase_HC.min()) < -2 * math.pi
    q_BHTC, k_BHTC = query_and_key(DIMS.head_dim)
    length_q, length_k = (1 + q_BHTC.exp()).log(), (1 + k_BHTC.exp()).log()
    theta_C = 10000.0 ** (-torch.arange(DIMS.head_dim, dtype=torch.float64) / DIMS.head_dim)
    gap_TT = POSITIONS[0, :, None] - POSITIONS[0]
    phase_HC11 = phase_HC.clamp(-2 * math.pi, 0)[:, None, None]
    cosine_HTTC = torch.cos(gap_TT[..., None] * theta_C - phase_HC11)
    wanted_BHTT = torch.einsum("bhqc,bhkc,hqkc->bhqk", length_q, length_k, cosine_HTTC)
    with torch.no_grad():
        torch.testing.assert_close(logits(pope(phase_HC)), wanted_BHTT, rtol=0, atol=1e-10)


def test_pope_has_a_frequency_and_a_phase_for_every_channel() -> None:
    scheme = build_scheme("pope", DIMS)
    assert scheme.phase_HC.shape == (DIMS.n_head, DIMS.head_dim) and not bool(scheme.phase_HC.any())
    theta_C = scheme.trained_frequencies(POSITIONS.device)
    torch.testing.assert_close(theta_C[[0, 6, 11]], torch.tensor([1.0, 0.01, 10000.0 ** (-11 / 12)]))
    assert scheme.layer(0) is scheme.layer(1)


def test_the_length_of_pope_comes_from_content_alone() -> None:
    q_BHTC, k_BHTC = query_and_key(DIMS.head_dim)
    with torch.no_grad():
        q_BHTR, k_BHTR = pope(-3 + drawn(2, DIMS.head_dim)).rotate(q_BHTC, k_BHTC, POSITIONS)
    for turned_BHTR, x_BHTC in ((q_BHTR, q_BHTC), (k_BHTR, k_BHTC)):
        cos_BHTC, sin_BHTC = turned_BHTR.chunk(2, dim=-1)
        torch.testing.assert_close(torch.hypot(cos_BHTC, sin_BHTC), torch.nn.functional.softplus(x_BHTC))


def test_pope_keeps_the_scale_of_the_head_it_widens() -> None:
    q_BHTC, k_BHTC = query_and_key(DIMS.head_dim)
    v_BHTC, scheme = drawn(1, 2, 8, DIMS.head_dim, seed=4), pope(torch.full((2, DIMS.head_dim), -1.0))
    future_TT = torch.ones(8, 8, dtype=torch.bool).triu(1)
    with torch.no_grad():
        scaled_BHTT = logits(scheme) * DIMS.head_dim**-0.5
        out_BHTC = attention(scheme, q_BHTC, k_BHTC, v_BHTC, POSITIONS, drawn(1, 8, DIMS.d_model))
    wanted_BHTC = scaled_BHTT.masked_fill(future_TT, -torch.inf).softmax(-1) @ v_BHTC
    torch.testing.assert_close(out_BHTC, wanted_BHTC)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("still", [0, 2])
def test_the_gradient_of_a_turn_passes_a_numerical_check(layout: Layout, still: int) -> None:
    """Written into place, it has a backward pass of its own; two of the channels may not turn at all."""
    x_BHTC = drawn(1, 2, 3, 6 + still).requires_grad_()
    angle_BTI, scale_BTI = drawn(1, 3, 3, seed=1), drawn(1, 3, 3, seed=2).exp()
    assert torch.autograd.gradcheck(lambda x: rotate_pairs(x, angle_BTI, scale_BTI, layout), (x_BHTC,))


@pytest.mark.parametrize("layout", list(Layout))
def test_a_turn_whose_angles_are_learned_gives_the_same_and_their_gradient(layout: Layout) -> None:
    x_BHTC, angle_BTI = drawn(1, 2, 3, 6), drawn(1, 3, 3, seed=1)
    learned_BTI = angle_BTI.clone().requires_grad_()
    turned_BHTC = rotate_pairs(x_BHTC, learned_BTI, 1.0, layout)
    torch.testing.assert_close(turned_BHTC, rotate_pairs(x_BHTC, angle_BTI, 1.0, layout))
    assert torch.autograd.gradcheck(lambda angle: rotate_pairs(x_BHTC, angle, 1.0, layout), (learned_BTI,))


def test_rotations_of_resonance_recur_exactly_after_whole_wavelengths() -> None:
    scheme = build_scheme("resonance", DIMS, base=100.0)
    wave_I = (2 * math.pi * 100.0 ** (torch.arange(6) / 6)).round()
    assert wave_I.tolist() == [6, 14, 29, 63, 135, 292]
    for pair, wave in enumerate(wave_I.long().tolist()):
        angle_T = scheme.angles(torch.arange(40 * wave)[None])[0, :, pair]
        assert torch.equal(angle_T.view(40, wave), angle_T[:wave].expand(40, wave))
        torch.testing.assert_close(angle_T[:wave], 2 * math.pi * torch.arange(wave) / wave)


def test_resonance_rounds_what_a_transform_has_stretched() -> None:
    """In the authors' code YaRN comes first; the reverse would give multiples of the factor."""
    stretched, _ = transforms.build_transform("pi", DIMS, factor=2.5).apply(
        build_scheme("resonance", DIMS, base=100.0), Window(DIMS), 160
    )
    wave_I = 2 * math.pi / stretched.frequencies(160, torch.device("cpu"))
    wanted_I = (2.5 * 2 * math.pi * 100.0 ** (torch.arange(6) / 6)).round()
    torch.testing.assert_close(wave_I, wanted_I)
    assert wanted_I[0] == 16


def test_grape_m_starts_as_rope_and_turns_each_block_by_its_own_frequencies() -> None:
    scheme = build_scheme("grape_m", DIMS)
    wanted = logits(build_scheme("rope", DIMS))
    torch.testing.assert_close(logits(scheme.layer(0)), wanted)
    with torch.no_grad():
        scheme.layer(0).shift_I.fill_(16 * math.log(2))
    torch.testing.assert_close(
        logits(scheme.layer(0)), logits(scheme.layer(1), 2 * POSITIONS), rtol=0, atol=1e-3
    )  # a float32 log
    torch.testing.assert_close(logits(scheme.layer(1)), wanted)


def test_an_imaginary_head_of_rope_plus_plus_is_a_head_of_rope() -> None:
    """q sin - rot(q) cos (Liu et al. 2025, arXiv 2512.07525) is RoPE of queries turned by a quarter.

    The projection of queries can learn that turn, so heads that are imaginary add no function to those of RoPE.
    """
    q_BHTC, k_BHTC = query_and_key(DIMS.head_dim)
    a_BHTI, b_BHTI = q_BHTC.chunk(2, dim=-1)
    angle_BTI = POSITIONS[..., None].double() * theta(DIMS.head_dim)
    cos_BHTC, sin_BHTC = ((part.repeat(1, 1, 2))[:, None] for part in (angle_BTI.cos(), angle_BTI.sin()))
    imaginary_BHTC = q_BHTC * sin_BHTC - torch.cat((-b_BHTI, a_BHTI), dim=-1) * cos_BHTC
    quarter_BHTC = torch.cat((b_BHTI, -a_BHTI), dim=-1)
    turned_BHTC, _ = build_scheme("rope", DIMS).rotate(quarter_BHTC, k_BHTC, POSITIONS)
    torch.testing.assert_close(turned_BHTC, imaginary_BHTC)
