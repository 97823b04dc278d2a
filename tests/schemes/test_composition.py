"""Schemes around schemes: positions that are drawn, skipped or dropped, and blocks that take turns.

Shape suffixes: B batch, T tokens, P positions.
"""

import pytest
import torch
from support.contract import decoder, hidden, text
from torch import Tensor

from posexp.attention import attention, kernel_path
from posexp.config.components import from_node, lean, options_of
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.alibi import alibi_slopes
from posexp.schemes.wrapper import Wrapper

DIMS = Dims(d_model=32, n_head=4, n_layer=2, train_length=8)
CPU = torch.device("cpu")


def drawn(scheme: Scheme, B: int = 200, T: int = 8) -> Tensor:
    torch.manual_seed(0)
    return scheme.positions(B, T, CPU)


def test_random_positions_ascend_without_repeats_and_come_from_the_whole_range() -> None:
    pos_BT = drawn(build_scheme("randomized", DIMS, factor=4.0).train())
    assert pos_BT.shape == (200, 8)
    assert bool((pos_BT.diff() > 0).all())
    assert (int(pos_BT.min()), int(pos_BT.max())) == (0, 31)
    counts_P = torch.bincount(pos_BT.flatten(), minlength=32).float()
    assert float(counts_P.min()) > 25 and float(counts_P.max()) < 75  # each comes up in a quarter of 200 draws


def test_random_positions_at_evaluation_are_a_choice() -> None:
    for at_evaluation in (True, False):
        scheme = build_scheme("randomized", DIMS, at_evaluation=at_evaluation).eval()
        consecutive = torch.equal(drawn(scheme, B=1), torch.arange(8)[None])
        assert consecutive != at_evaluation
        assert scheme.max_length == (128 if at_evaluation else None)
        assert scheme.prefix_stable != at_evaluation
    with pytest.raises(Misuse, match="128"):
        build_scheme("randomized", DIMS).eval().positions(1, 129, CPU)


def test_the_inner_scheme_of_random_positions_knows_all_of_them() -> None:
    assert build_scheme("randomized", DIMS, inner="learned", factor=4.0).max_length == 32
    assert build_scheme("pose", DIMS, inner="learned", factor=4.0).max_length == 32
    assert build_scheme("offset", DIMS, inner="learned", most=5).max_length == 13


def test_biases_by_distance_go_by_the_positions_drawn() -> None:
    """ALiBi, all logits zero: the last query's weights are softmax(-slope * difference of positions)."""
    T = 8
    scheme = build_scheme("randomized", DIMS, inner="alibi").train()
    pos_BT = drawn(scheme, B=2)
    zeros_BHTC, v_BHTC = torch.zeros(2, 4, T, 8), torch.eye(T).expand(2, 4, T, T)
    weights_BHTT = attention(scheme, zeros_BHTC, zeros_BHTC, v_BHTC, pos_BT, torch.zeros(2, T, 32))
    for sequence in range(2):
        for head, slope in enumerate(alibi_slopes(4)):
            wanted_T = torch.softmax(-slope * (pos_BT[sequence, -1] - pos_BT[sequence]).float(), dim=0)
            torch.testing.assert_close(weights_BHTT[sequence, head, -1], wanted_T)
    assert kernel_path(scheme, DIMS) == "sdpa bias blocks"
    assert kernel_path(build_scheme("pose", DIMS, inner="alibi").eval(), DIMS) == "sdpa distance view"


def test_one_shift_for_all_positions_of_a_sequence() -> None:
    scheme = build_scheme("offset", DIMS, most=5)
    pos_BT = drawn(scheme.train())
    assert bool((pos_BT.diff() == 1).all())
    assert sorted(set(pos_BT[:, 0].tolist())) == [0, 1, 2, 3, 4, 5]
    assert torch.equal(drawn(scheme.eval(), B=1), torch.arange(8)[None])


def test_one_skip_within_the_target_length() -> None:
    scheme = build_scheme("pose", DIMS, factor=4.0)
    step_BT = drawn(scheme.train()).diff()
    assert bool(((step_BT > 1).sum(-1) <= 1).all()) and bool((step_BT >= 1).all())
    pos_BT = drawn(scheme.train())
    assert bool((pos_BT[:, 0] == 0).all()) and int(pos_BT.max()) == 31
    assert torch.equal(drawn(scheme.eval(), B=1), torch.arange(8)[None])


@pytest.mark.parametrize("inner", ["rope", "alibi", "sinusoidal", "fire", "fox"])
def test_dropped_positions_leave_none(inner: str) -> None:
    model = decoder(lambda dims: build_scheme("drope", dims, inner=inner, keep=0.5))
    plain = decoder(lambda dims: build_scheme(inner, dims))
    without = decoder(lambda dims: build_scheme("none", dims))
    model.scheme.inner.load_state_dict(plain.scheme.state_dict())
    tokens_BT = text(20)
    model.scheme.progress(0.49)
    assert torch.equal(hidden(model, tokens_BT), hidden(plain, tokens_BT))
    model.scheme.progress(0.5)
    assert torch.equal(hidden(model, tokens_BT), hidden(without, tokens_BT))
    assert not model.scheme.reads_positions and model.scheme.relative and model.scheme.max_length is None


def test_blocks_take_turns() -> None:
    scheme = build_scheme("alternate", DIMS, inner="alibi", other="rope", every=2)
    names = [type(scheme.layer(index)).__name__ for index in range(4)]
    assert names == ["Alibi", "Rope", "Alibi", "Rope"]
    assert build_scheme("alternate", DIMS, every=4).layer(3).reads_positions is False
    with pytest.raises(Misuse, match="embeddings"):
        build_scheme("alternate", DIMS, inner="sinusoidal")


def test_a_wrapper_gives_each_block_its_own_part() -> None:
    scheme = build_scheme("offset", DIMS, inner="fox")
    one, other = scheme.layer(0), scheme.layer(1)
    assert one.inner is scheme.inner.layer(0) and other.inner is scheme.inner.layer(1)
    assert one is not scheme and scheme.inner is not one.inner


def test_wrappers_stack() -> None:
    scheme = build_scheme("drope", DIMS, inner=build_scheme("randomized", DIMS, inner="alibi", factor=2.0))
    assert scheme.fingerprint() == (
        "Drope(after 0.875 of training, Randomized(of 16, always, Alibi(slopes=0.25..0.00390625)))"
    )
    assert drawn(scheme.train()).max() == 15


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("randomized", {"factor": 0.5}, "scheme.factor"),
        ("pose", {"factor": 0.5}, "scheme.factor"),
        ("offset", {"most": -1}, "scheme.most"),
        ("drope", {"keep": 1.5}, "scheme.keep"),
        ("alternate", {"every": 0}, "scheme.every"),
        ("randomized", {"inner": "nothing"}, "no scheme 'nothing'"),
        ("randomized", {"inner": {"_target_": "torch.nn.Linear"}}, "not a posexp"),
    ],
)
def test_impossible_compositions_are_refused_in_one_line(name: str, options: dict, key: str) -> None:
    with pytest.raises(Misuse, match=key) as refusal:
        build_scheme(name, DIMS, **options)
    assert "\n" not in str(refusal.value)


def test_an_option_that_came_later_changes_no_run_s_name() -> None:
    node = options_of("scheme", "rope", {})
    assert "layout" in node and "layout" not in lean(node)
    assert lean({**node, "layout": "interleaved"})["layout"] == "interleaved"
    inside = options_of("scheme", "randomized", {})
    assert "layout" not in lean(inside)["inner"]
    old = {key: value for key, value in node.items() if key != "layout"}
    assert from_node("scheme", Scheme, old, DIMS).fingerprint() == build_scheme("rope", DIMS).fingerprint()


WRAPPED: list[tuple[str, dict]] = [
    ("randomized", {"at_evaluation": False}),
    ("offset", {}),
    ("pose", {}),
    ("drope", {}),
    ("alternate", {"other": "rope"}),
]


@pytest.mark.parametrize(("name", "options"), WRAPPED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_promise_that_the_inner_scheme_takes_back_is_taken_back_by_what_wraps_it(name: str, options: dict) -> None:
    scheme = build_scheme("offset", DIMS, inner=build_scheme(name, DIMS, inner="rope", **options))
    assert (scheme.relative, scheme.prefix_stable, scheme.max_length) == (True, True, None)
    inner = scheme.inner.inner
    inner.relative, inner.prefix_stable, inner.max_length = False, False, 5
    assert (scheme.relative, scheme.prefix_stable, scheme.max_length) == (False, False, 5)


def test_positions_that_are_no_longer_dropped_promise_again_what_they_did() -> None:
    scheme = build_scheme("drope", DIMS, inner="learned", keep=0.5).eval()
    scheme.progress(1.0)
    assert scheme.relative and scheme.max_length is None
    scheme.progress(0.0)  # the twin that resumes from a checkpoint
    assert not scheme.relative and scheme.max_length == 8
    drawn_always = build_scheme("drope", DIMS, inner="randomized").eval()
    drawn_always.progress(1.0)
    assert drawn_always.max_length is None and drawn_always.positions(1, 200, CPU).shape == (1, 200)


def test_a_wrapper_of_a_user_s_own_sets_its_promises_as_any_scheme() -> None:
    class OfInstance(Wrapper):
        def __init__(self, dims: Dims, inner: Scheme):
            super().__init__(dims, inner)
            self.relative = False
            self.max_length = min(self.max_length or 7, 7)

    class OfClass(Wrapper):
        relative = False
        max_length = 7

    for kind in (OfInstance, OfClass):
        scheme = kind(DIMS, build_scheme("rope", DIMS))
        assert not scheme.relative and scheme.max_length == 7 and scheme.prefix_stable
        assert not build_scheme("pose", DIMS, inner=scheme).relative
