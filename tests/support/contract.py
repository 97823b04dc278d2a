"""The contract: what every positional scheme keeps, as functions that raise AssertionError for one that does not.

Each takes `make`, which gives a new scheme for a decoder's sizes, and goes by what the scheme declares of itself.
Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head, N distances.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from posexp import attention, windows
from posexp.config.sections import ModelConfig
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.model.decoder import Decoder
from posexp.schemes import Scheme

Make = Callable[[Dims], Scheme]

TRAIN = 64
VOCAB = 61
FAR = 4096
FAR_AWAY = 100_000
BF16_STEP = 2**-7  # two roundings to bfloat16, relative


def dims(n_layer: int = 2) -> Dims:
    return Dims(d_model=32, n_head=4, n_layer=n_layer, train_length=TRAIN)


def decoder(make: Make, n_layer: int = 2, seed: int = 0) -> Decoder:
    """A small decoder in which attention has something to say: weights of unit gain, so logits of about 1."""
    scheme = make(dims(n_layer))
    model = Decoder(ModelConfig(d_model=32, n_layer=n_layer, n_head=4), VOCAB, scheme, seed)
    with torch.no_grad():
        for weight in model.blocks.parameters():
            if weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
        for weight in scheme.parameters():
            if not weight.any():  # what starts at zero does nothing yet
                weight.normal_(std=0.5)
    return model.eval()


def text(T: int, B: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(seed))


def hidden(model: Decoder, tokens_BT: Tensor) -> Tensor:
    torch.manual_seed(0)  # for schemes that draw positions
    with torch.no_grad():
        return model(tokens_BT)


def reach(scheme: Scheme, wanted: int) -> int:
    """`wanted` tokens, or as many as the scheme is defined for."""
    return min(wanted, scheme.max_length or wanted)


def furthest(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape and bool(one.isfinite().all()) and bool(other.isfinite().all()), "not finite"
    return float((one.double() - other.double()).abs().max())


def give_positions(scheme: Scheme, positions: Callable[[int, int, torch.device], Tensor]) -> None:
    scheme.positions_of = lambda tokens_BT: positions(*tokens_BT.shape, tokens_BT.device)  # type: ignore[method-assign]


def it_learns(make: Make) -> None:
    model = decoder(make).train()
    tokens_BT = text(reach(model.scheme, TRAIN) + 1, B=2)
    model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, f"{name} has no gradient"
        assert bool(weight.grad.isfinite().all()), f"the gradient of {name} is not finite"
        assert bool(weight.grad.any()), f"the gradient of {name} is zero"


def it_never_sees_the_future(make: Make) -> None:
    model = decoder(make)
    tokens_BT = text(24)
    before_BTD = hidden(model, tokens_BT)
    for t in (1, 11, 23):
        changed_BT = tokens_BT.clone()
        changed_BT[:, t] = (tokens_BT[:, t] + 1) % VOCAB
        after_BTD = hidden(model, changed_BT)
        assert furthest(before_BTD[:, :t], after_BTD[:, :t]) <= 1e-6, f"token {t} is seen before its time"
        assert furthest(before_BTD[:, t:], after_BTD[:, t:]) > 1e-3, f"token {t} is not seen at all"


def short_and_long_inputs_agree(make: Make) -> None:
    model = decoder(make)
    if not model.scheme.prefix_stable:
        return
    long = reach(model.scheme, 4 * TRAIN)
    long_BTD = hidden(model, text(long))
    for short in (1, long // 4, long - 1):
        assert furthest(hidden(model, text(long)[:, :short]), long_BTD[:, :short]) < 1e-4, f"{short} against {long}"


def sequences_of_a_batch_are_apart(make: Make) -> None:
    model = decoder(make)
    T = reach(model.scheme, 2 * TRAIN) // 2
    pos_BT = torch.stack((torch.arange(T), torch.arange(T) * 2 + 1))
    give_positions(model.scheme, lambda B, T, device: pos_BT)
    together_BTD = hidden(model, text(T, B=2))
    for row in range(2):
        give_positions(model.scheme, lambda B, T, device, row=row: pos_BT[row : row + 1])
        assert furthest(hidden(model, text(T, B=2)[row : row + 1]), together_BTD[row : row + 1]) < 1e-5


def query_blocks_change_nothing(make: Make) -> None:
    model = decoder(make)
    tokens_BT = text(reach(model.scheme, 100), B=2)
    whole_BTD = hidden(model, tokens_BT)
    for size in (1, 7, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windows, "QUERY_BLOCK", size)
            assert furthest(hidden(model, tokens_BT), whole_BTD) < 1e-4, f"in blocks of {size}"


def windows_hide_what_lies_outside(make: Make) -> None:
    """In one layer: a token changes the outputs that see it, and no other; a window as wide as the input hides none."""
    T = reach(make(dims(1)), 48)
    tokens_BT = text(T)
    changed_BT = tokens_BT.clone()
    changed_BT[:, 5] = (tokens_BT[:, 5] + 1) % VOCAB
    for name, sizes, last in (("sliding", {"size": 7}, 11), ("bca", {"block": 4}, 11), ("sliding", {"size": T}, T - 1)):
        model = decoder(make, n_layer=1)
        full_BTD = hidden(model, tokens_BT)
        model.window = windows.build_window(name, model.scheme.dims, **sizes)
        before_BTD, after_BTD = hidden(model, tokens_BT), hidden(model, changed_BT)
        if last == T - 1:
            assert furthest(before_BTD, full_BTD) < 1e-5, "a window that hides nothing changes something"
            continue
        assert furthest(before_BTD[:, last + 1 :], after_BTD[:, last + 1 :]) < 1e-5, f"{name}: seen from too far"
        assert furthest(before_BTD[:, last], after_BTD[:, last]) > 1e-4, f"{name}: not seen"
        assert furthest(before_BTD[:, :4], full_BTD[:, :4]) < 1e-5, f"{name}: the first tokens see less"


def shifting_all_positions(make: Make) -> None:
    """Changes nothing for a relative scheme, and something for one that reads where things are."""
    model = decoder(make)
    T = reach(model.scheme, TRAIN) // 2

    def stand_at(shift: int) -> None:
        give_positions(model.scheme, lambda B, T, device: torch.arange(T, device=device)[None] + shift)

    stand_at(0)
    here_BTD = hidden(model, text(T))
    shifts = (1000, FAR_AWAY) if model.scheme.max_length is None else (model.scheme.max_length - T,)
    for shift in shifts:
        stand_at(shift)
        moved = furthest(hidden(model, text(T)), here_BTD)
        # float32 angles: half a unit in the last place of `shift` radians
        allowed = 1e-4 + 50 * shift * 2**-24
        if model.scheme.relative:
            assert moved < allowed, f"a shift by {shift} moves the output by {moved:.2g}"
        elif model.scheme.reads_positions:
            assert moved > 1e-3, f"a shift by {shift} changes nothing"


def positions_reach_the_model(make: Make) -> None:
    """In one layer; a second can tell order by the causal mask alone."""
    model = decoder(make, n_layer=1)
    tokens_BT = text(24)
    tokens_BT[:, 9:11] = ord("0")  # for schemes that count digits
    swapped_BT = tokens_BT.clone()
    swapped_BT[:, [2, 9]] = tokens_BT[:, [9, 2]]
    assert int(tokens_BT[0, 2]) != int(tokens_BT[0, 9])
    moved = furthest(hidden(model, tokens_BT)[:, -1], hidden(model, swapped_BT)[:, -1])
    if model.scheme.reads_positions:
        assert moved > 1e-4, "the order of earlier tokens does not matter"
    else:
        assert moved < 1e-5, f"the order of earlier tokens matters: {moved:.2g}"


def it_says_how_long_it_reaches(make: Make) -> None:
    model = decoder(make)
    limit = model.scheme.max_length
    T = reach(model.scheme, 4 * TRAIN)
    if limit is not None and limit > FAR:  # the last positions there are, in a short text
        give_positions(model.scheme, lambda B, T, device: torch.arange(limit - T, limit)[None])
    assert bool(hidden(model, text(T)).isfinite().all())
    if limit is not None:
        with pytest.raises(Misuse, match=str(limit)):
            hidden(model, text(limit + 1))


def nothing_is_kept_between_calls(make: Make) -> None:
    model = decoder(make)
    long = reach(model.scheme, 4 * TRAIN)
    fresh_BTD = hidden(model, text(long // 4))
    model = decoder(make)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden(model, text(long))
    hidden(model, text(long, B=3))
    assert torch.equal(hidden(model, text(long // 4)), fresh_BTD)


def far_out_it_stays_exact(make: Make) -> None:
    model = decoder(make)
    tokens_BT = text(reach(model.scheme, FAR))
    single_BTD = hidden(model, tokens_BT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half_BTD = hidden(model, tokens_BT)
    double_BTD = hidden(model.double(), tokens_BT)
    assert furthest(single_BTD, double_BTD) < 1e-3
    assert bool(half_BTD.isfinite().all())
    off = float((half_BTD.double() - double_BTD).square().mean().sqrt())
    assert off < 0.05, f"in bfloat16 the output (of unit scale) is off by {off:.2g}"


def positions_are_float32_under_autocast(make: Make) -> None:
    """Far out, where bfloat16 has one number for hundreds of positions."""
    torch.manual_seed(0)
    root = make(dims())
    scheme, size = root.layer(0), dims()
    T = 16
    begin = FAR_AWAY if root.max_length is None else root.max_length - T
    pos_BT = torch.arange(begin, begin + T)[None]
    q_BHTC, k_BHTC = torch.randn(2, 1, size.n_head, T, size.head_dim).bfloat16()
    x_BTD = torch.randn(1, T, size.d_model).bfloat16()
    with torch.no_grad():
        exact = scheme.rotate(q_BHTC.float(), k_BHTC.float(), pos_BT)
        embedded_BTD = root.embed(x_BTD.float(), pos_BT)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = scheme.rotate(q_BHTC, k_BHTC, pos_BT)
            rounded_BTD = root.embed(x_BTD, pos_BT)
    for wanted_BHTC, got_BHTC in zip(exact, rounded, strict=True):
        assert got_BHTC.dtype == torch.bfloat16
        torch.testing.assert_close(got_BHTC.float(), wanted_BHTC, rtol=BF16_STEP, atol=BF16_STEP / 8)
    # a sum of two terms of up to 4, each rounded
    torch.testing.assert_close(rounded_BTD.float(), embedded_BTD, rtol=BF16_STEP, atol=4 * BF16_STEP)
    for name, arguments in (("distance_bias", (torch.arange(FAR),)), ("bias", (pos_BT, pos_BT))):
        exact_bias = getattr(scheme, name)(*arguments)
        if exact_bias is not None:
            assert exact_bias.dtype == torch.float32, f"{name} gives {exact_bias.dtype}"
            with torch.autocast("cpu", dtype=torch.bfloat16):
                seen = biases_seen_by_attention(scheme, name, q_BHTC, k_BHTC, pos_BT, x_BTD)
            assert seen and all(bias.dtype == torch.float32 for bias in seen)


def biases_seen_by_attention(
    scheme: Scheme, name: str, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor
) -> list[Tensor]:
    given, hook = [], getattr(scheme, name)

    def listen(*arguments: Tensor) -> Tensor:
        given.append(hook(*arguments))
        return given[-1]

    setattr(scheme, name, listen)
    attention.attention(scheme, q_BHTC, k_BHTC, k_BHTC, pos_BT, x_BTD)
    delattr(scheme, name)
    return given


def the_decoder_is_the_same(make: Make) -> None:
    """Weights and their number, for one seed, whatever the scheme draws for itself."""
    model, plain = (
        Decoder(ModelConfig(d_model=32, n_layer=2, n_head=4), VOCAB, scheme(dims()), seed=3)
        for scheme in (make, Scheme)
    )
    ours = {name: weight for name, weight in model.state_dict().items() if not name.startswith("scheme.")}
    theirs = plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    counts, plain_counts = model.parameter_counts(), plain.parameter_counts()
    assert counts["scheme"] == sum(weight.numel() for weight in model.scheme.parameters())
    assert counts["total"] - counts["scheme"] == plain_counts["total"]
    assert (counts["embedding"], counts["decoder"]) == (plain_counts["embedding"], plain_counts["decoder"])


CONTRACT: list[Callable[[Make], None]] = [
    it_learns,
    it_never_sees_the_future,
    short_and_long_inputs_agree,
    sequences_of_a_batch_are_apart,
    query_blocks_change_nothing,
    windows_hide_what_lies_outside,
    shifting_all_positions,
    positions_reach_the_model,
    it_says_how_long_it_reaches,
    nothing_is_kept_between_calls,
    far_out_it_stays_exact,
    positions_are_float32_under_autocast,
    the_decoder_is_the_same,
]
