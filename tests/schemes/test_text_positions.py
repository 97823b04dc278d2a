"""Schemes whose positions come from the text: the places of digits, and positions that are coupled.

Shape suffixes: B batch, T tokens.
"""

import pytest
import torch
from torch import Tensor

from posexp import transforms
from posexp.config.compose import compose
from posexp.config.sections import ModelConfig
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.model.decoder import build_decoder
from posexp.schemes import Scheme, build_scheme
from posexp.training.prepare import check_model
from posexp.transforms import NotApplicable
from posexp.windows import Window

DIMS = Dims(d_model=16, n_head=2, n_layer=2, train_length=32)
BOTH = ["abacus", "coupling"]


def tokens(*texts: str) -> Tensor:
    return torch.tensor([list(text.encode()) for text in texts])


def positions(scheme: Scheme, *texts: str) -> list[list[int]]:
    return scheme.positions_of(tokens(*texts)).tolist()


def test_abacus_counts_the_digits_of_each_number() -> None:
    scheme = build_scheme("abacus", DIMS).eval()
    assert positions(scheme, "\n120+34=7\n5", "12ab+3=045x") == [
        [0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 1],
        [1, 2, 0, 0, 0, 1, 0, 1, 2, 3, 0],
    ]
    assert positions(scheme, "no digits: 0") == [[0] * 11 + [1]]


def test_coupling_gives_digits_of_one_value_one_position() -> None:
    scheme = build_scheme("coupling", DIMS).eval()
    assert positions(scheme, "\n21+59=701\n", "ab>ab\nc\n\n\n\n") == [
        [0, 2, 3, 1, 2, 3, 1, 2, 3, 4, 0],
        [2, 3, 1, 2, 3, 0, 2, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("name", BOTH)
def test_in_training_every_sequence_has_a_start_of_its_own(name: str) -> None:
    scheme, text = build_scheme(name, DIMS, max_start=5), "\n21+59=701\n"
    plain_1T = torch.tensor(positions(scheme.eval(), text))
    torch.manual_seed(0)
    drawn_BT = torch.tensor(positions(scheme.train(), *[text] * 200))
    assert bool((drawn_BT[:, plain_1T[0] == 0] == 0).all())
    start_BX = (drawn_BT - plain_1T)[:, plain_1T[0] > 0]
    assert bool((start_BX == start_BX[:, :1]).all())
    assert set(start_BX[:, 0].tolist()) == set(range(6))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("text", ["1" * 32, "a" * 32, "\n" * 32])
def test_the_longest_number_of_training_fits_the_table_exactly(name: str, text: str) -> None:
    scheme = build_scheme(name, DIMS, entries=32 + 5 + 2, max_start=5)
    torch.manual_seed(0)
    pos_BT = scheme.positions_of(tokens(*[text] * 100))
    assert int(pos_BT.max()) < 39
    scheme.embed(torch.zeros(100, 32, 16), pos_BT)
    longest_1T = scheme.eval().positions_of(tokens("1" * scheme.max_length))  # type: ignore[operator]
    assert int(longest_1T.max()) < 39
    with pytest.raises(Misuse, match=r"must be at least 39: train\.length"):
        build_scheme(name, DIMS, entries=38, max_start=5)


@pytest.mark.parametrize("name", BOTH)
def test_the_decoder_gives_the_text_to_the_scheme_through_a_temperature(name: str) -> None:
    """Two digits of one place are told apart by the causal mask alone: in one block, their order does not matter."""
    size, node = ModelConfig(d_model=16, n_layer=1, n_head=2), {"_target_": f"posexp.schemes.{name}.{name.title()}"}
    warm = {"_target_": "posexp.temperatures.LogN", "floor": 1.0, "everywhere": True}
    for temperature in (None, warm):
        options = {"entries": 64, "max_start": 5}
        model = build_decoder(size, 256, node | options, 32, seed=0, temperature_node=temperature).eval()
        with torch.no_grad():
            apart = [model(tokens(text))[0, -1] for text in ("9+5=", "5+9=", "95+=", "59+=")]
        torch.testing.assert_close(apart[0], apart[1])
        assert float((apart[2] - apart[3]).abs().max()) > 1e-4


@pytest.mark.parametrize("name", BOTH)
def test_positions_in_bfloat16_are_still_those_of_the_text(name: str) -> None:
    scheme = build_scheme(name, DIMS).eval()
    coarse, _ = transforms.build_transform("bf16_positions", DIMS).apply(scheme, Window(DIMS), 32)
    assert positions(coarse, "\n21+59=701\n") == positions(scheme, "\n21+59=701\n")


@pytest.mark.parametrize("name", BOTH)
def test_what_cannot_give_positions_from_the_text_is_refused(name: str) -> None:
    with pytest.raises(Misuse, match="positions come from the text"):
        build_scheme("drope", DIMS, inner=name)
    with pytest.raises(NotApplicable, match="positions from the text"):
        transforms.build_transform("offset", DIMS, by=3).apply(build_scheme(name, DIMS), Window(DIMS), 32)
    command = compose("train", [f"scheme={name}", "data=stdlib", "wandb.mode=disabled"])
    with pytest.raises(Misuse, match=r"choose data\.tokenizer=bytes"):
        check_model(command, torch.device("cpu"))
    check_model(compose("train", [f"scheme={name}", "data=addition", "wandb.mode=disabled"]), torch.device("cpu"))
