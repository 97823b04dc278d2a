"""Weights in 8 bits and positions in bfloat16: what is rounded, by how much, and what stays."""

import pytest
import torch

from posexp.config.sections import ModelConfig
from posexp.dims import Dims
from posexp.model.decoder import Decoder
from posexp.schemes import bias_between, build_scheme
from posexp.transforms import NotApplicable, build_transform
from posexp.transforms.low_precision import Format, round_trip
from posexp.windows import Window

DIMS = Dims(32, 2, 2, 64)
BIG = 12_345  # in bfloat16: 12,352


def test_every_row_is_rounded_to_its_own_255_values_or_3_bits_of_mantissa():
    rows = torch.randn(6, 50) * torch.logspace(-6, 3, 6)[:, None]
    whole, floating = (round_trip(rows, kind) for kind in Format)
    step = rows.abs().amax(1, keepdim=True) / 127
    assert ((whole - rows).abs() <= 0.5001 * step).all() and (whole / step - (whole / step).round()).abs().max() < 1e-3
    large = rows.abs() > step * 2  # below, e4m3 is subnormal
    assert ((floating - rows).abs() / rows.abs())[large].max() < 2**-4 * 1.01 and (floating != rows).any()
    assert round_trip(torch.zeros(3, 2), Format.int8).tolist() == [[0, 0]] * 3


def test_the_blocks_and_the_scheme_are_rounded_and_the_model_as_trained_stays():
    model = Decoder(ModelConfig(d_model=32, n_layer=2, n_head=2), 11, build_scheme("t5", DIMS), seed=0).eval()
    torch.nn.init.normal_(next(model.scheme.parameters()))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    transform = build_transform("int8", DIMS)
    twin = transform.model(model)
    twin.scheme, _ = transform.apply(model.scheme, model.window, 64)
    changed = {name for name, weight in twin.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {
        name for name, w in before.items() if name.startswith("scheme.") or (".blocks" in f".{name}" and w.ndim > 1)
    }
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert transform.model(model).blocks is twin.blocks, "rounded once"


def test_positions_distances_and_angles_are_bfloat16_and_distances_up_to_256_exact():
    transform = build_transform("bf16_positions", DIMS)
    pos_1T = torch.tensor([[0, 300, BIG]])
    for name in ("rope", "alibi", "kerple_log", "sinusoidal"):
        scheme = build_scheme(name, DIMS)
        coarse, _ = transform.apply(scheme, Window(DIMS), 64)
        assert coarse.positions(1, 300, torch.device("cpu"))[0, :257].tolist() == list(range(257))
        assert coarse.positions(1, 300, torch.device("cpu"))[0, 299] == 300
        bias, exact = (one.distance_bias(torch.tensor([256, BIG])) for one in (coarse, scheme))
        if exact is not None:
            assert torch.equal(bias[:, 0], exact[:, 0])
            assert torch.equal(bias[:, 1], scheme.distance_bias(torch.tensor([12_352]))[:, 0])
            assert bias_between(coarse, pos_1T, pos_1T).shape == (1, 2, 3, 3)
    rope, q_BHTC = build_scheme("rope", DIMS), torch.ones(1, 2, 3, 16)
    coarse, _ = transform.apply(rope, Window(DIMS), 64)
    angle = rope.angles(pos_1T).bfloat16().float()
    expected = torch.cat((angle.cos() - angle.sin(), angle.sin() + angle.cos()), -1)
    assert torch.allclose(coarse.rotate(q_BHTC, q_BHTC, pos_1T)[0][0, 0], expected[0], atol=1e-6)


FAR = Dims(32, 2, 2, 1024)


@pytest.mark.parametrize(
    ("name", "dims", "options"),
    [
        *((name, DIMS, {}) for name in ("none", "t5", "fox", "cope", "path", "stick_breaking", "wall", "wavelet")),
        ("learned", DIMS, {"past_end": "clamp"}),
    ],
)
def test_a_scheme_whose_result_bfloat16_positions_cannot_change_refuses_them(name, dims, options):
    with pytest.raises(NotApplicable, match="computes the same from positions in bfloat16"):
        build_transform("bf16_positions", dims).apply(build_scheme(name, dims, **options), Window(dims), 64)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in ("rope", "alternate", "dape", "randomized", "learned", "integer", "fire")),
     ("t5", {"max_distance": 2048})],
)  # fmt: skip
def test_bfloat16_positions_change_a_scheme_that_reads_far_positions(name, options):
    scheme, state = build_scheme(name, FAR, **options), torch.get_rng_state()
    before = [weight.clone() for weight in scheme.parameters()]
    coarse, _ = build_transform("bf16_positions", FAR).apply(scheme, Window(FAR), 64)
    assert torch.equal(torch.get_rng_state(), state), "an evaluation draws the same numbers"
    pos_1T = coarse.positions(1, 1024, torch.device("cpu"))
    assert (pos_1T[:, :-1] == pos_1T[:, 1:]).any() and coarse.embed(torch.zeros(1, 1024, 32), pos_1T).isfinite().all()
    assert all(torch.equal(*pair) for pair in zip(before, scheme.parameters(), strict=True))
