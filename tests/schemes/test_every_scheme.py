"""Every scheme of configs/scheme, and schemes from outside, keep the contract; mistakes do not pass it."""

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from support import contract
from support.contract import CONTRACT, Make, far_out_it_stays_exact
from torch import Tensor, nn

from posexp.attention import kernel_path
from posexp.config.components import read_options
from posexp.config.sections import ModelConfig, config_dir
from posexp.config.values import plain_value
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.model.decoder import build_decoder as build_decoder
from posexp.schemes import Scheme, build_scheme, from_config
from posexp.schemes.rope import Rope
from posexp.windows import Window

FILES = sorted((config_dir() / "scheme").glob("*.yaml"))
DEFAULTS = [(file.stem, {}) for file in FILES]
OPTIONS = [
    ("learned", {"past_end": "clamp"}),
    ("learned", {"past_end": "interpolate"}),
    ("rope", {"fraction": 0.5}),
    ("rope", {"base": 500_000.0}),
    ("rope", {"layout": "interleaved"}),
    ("xpos", {"fraction": 0.25, "scale_base": 64.0}),
    ("randomized", {"inner": "alibi"}),
    ("randomized", {"inner": "learned", "at_evaluation": False}),
    ("randomized", {"inner": "sinusoidal", "floats": True}),
    ("randomized", {"inner": "alibi", "floats": True, "at_evaluation": False}),
    ("offset", {"inner": "learned"}),
    ("pose", {"inner": "alibi"}),
    ("drope", {"inner": "sinusoidal"}),
    ("alternate", {"inner": "alibi", "other": "rope"}),
    ("dape", {"kernel": 3}),
]

# What someone else's package may hold: one scheme for each hook that posexp's own schemes leave alone.
MINE = textwrap.dedent('''
    import torch
    import torch.nn.functional as F
    from torch import nn
    from posexp.schemes import Scheme

    class Kerple(Scheme):
        """-r1 log(1 + r2 distance). Chi et al. 2022, arXiv 2205.09921."""
        relative = True

        def __init__(self, dims, r2: float):
            super().__init__(dims)
            self.r1, self.r2 = nn.Parameter(torch.ones(dims.n_head)), nn.Parameter(torch.full((dims.n_head,), r2))

        def distance_bias(self, gap_N):
            return -self.r1[:, None] * torch.log1p(self.r2[:, None] * gap_N)

    class Fire(Scheme):
        """f(psi(distance) / psi(max(threshold, position))). Li et al. 2023, arXiv 2310.04418."""

        def __init__(self, dims, width: int):
            super().__init__(dims)
            self.c = nn.Parameter(torch.tensor(0.1))
            self.f = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, dims.n_head))

        def bias(self, pos_BQ, pos_BK):
            gap_BQK = (pos_BQ[:, :, None] - pos_BK[:, None, :]).clamp(min=0)
            end_BQ1 = pos_BQ[:, :, None].clamp(min=self.dims.train_length)
            share_BQK = torch.log1p(self.c * gap_BQK) / torch.log1p(self.c * end_BQ1)
            return self.f(share_BQK[..., None]).permute(0, 3, 1, 2)

    class Forgetting(Scheme):
        """One forget gate for each block, read from the content. Lin et al. 2025, arXiv 2503.02130."""
        relative = True

        def __init__(self, dims):
            super().__init__(dims)
            self.gates = nn.ModuleList(Gate(dims) for _ in range(dims.n_layer))

        def layer(self, index):
            return self.gates[index]

    class Gate(Scheme):
        relative = True

        def __init__(self, dims):
            super().__init__(dims)
            self.gate = nn.Linear(dims.d_model, dims.n_head)

        def attend(self, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window):
            with torch.autocast(q_BHTC.device.type, enabled=False):
                x_BTD = x_BTD.to(self.gate.weight.dtype)
                kept_BHT = F.logsigmoid(self.gate(x_BTD)).cumsum(1).transpose(1, 2)
                T = q_BHTC.shape[2]
                index_T = torch.arange(T, device=q_BHTC.device)
                bias_BHTT = kept_BHT[..., :, None] - kept_BHT[..., None, :]
                bias_BHTT = bias_BHTT.masked_fill(~window.visible(index_T, index_T), -torch.inf)
                parts = (part.to(bias_BHTT.dtype) for part in (q_BHTC, k_BHTC, v_BHTC))
                return F.scaled_dot_product_attention(*parts, attn_mask=bias_BHTT).to(q_BHTC.dtype)
''')
FROM_OUTSIDE = [
    ({"_target_": "somebodys_schemes.Kerple", "r2": 0.5}, "sdpa distance view"),
    ({"_target_": "somebodys_schemes.Fire", "width": 8}, "sdpa bias blocks"),
    ({"_target_": "somebodys_schemes.Forgetting"}, "scheme"),
]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "somebodys_schemes.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("somebodys_schemes", None)


def say(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={inner}" for key, inner in value.items()) or "defaults"
    return getattr(value, "__name__", str(value))


CHECKS = [
    pytest.param(check, id=say(check), marks=[pytest.mark.slow] if check is far_out_it_stays_exact else [])
    for check in CONTRACT
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("name", "options"), DEFAULTS + OPTIONS, ids=say)
def test_a_scheme_keeps_the_contract(name: str, options: dict, check: Callable[[Make], None]) -> None:
    check(lambda dims: build_scheme(name, dims, **options))


@pytest.mark.slow
@pytest.mark.parametrize("check", CONTRACT, ids=say)
@pytest.mark.parametrize(("node", "path"), FROM_OUTSIDE, ids=say)
def test_a_scheme_from_outside_keeps_the_contract(
    mine: None, node: dict, path: str, check: Callable[[Make], None]
) -> None:
    check(partial(from_config, node))


@pytest.mark.parametrize(("node", "path"), FROM_OUTSIDE, ids=say)
def test_a_scheme_from_outside_takes_its_own_path(mine: None, node: dict, path: str) -> None:
    assert kernel_path(from_config(node, contract.dims()), contract.dims()) == path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_yaml_holds_every_option_and_its_default(file: Path) -> None:
    assert file.read_text().startswith("# ")
    options = read_options(file)
    first, *parameters = list(inspect.signature(get_class(options.pop("_target_")).__init__).parameters.values())[1:]
    assert first.name == "dims"
    assert [parameter.name for parameter in parameters] == list(options)
    for parameter in parameters:
        if parameter.default is not parameter.empty:  # what runs from before the option had
            assert plain_value(parameter.default) == options[parameter.name], f"{parameter.name} has two defaults"
        assert parameter.annotation is not parameter.empty, f"{parameter.name} has no type"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_decoder_is_built_from_a_yaml_alone(file: Path) -> None:
    size = ModelConfig(d_model=32, n_layer=2, n_head=4)
    one, same, other = (build_decoder(size, contract.VOCAB, read_options(file), 16, seed) for seed in (5, 5, 6))
    tokens_BT = contract.text(16)
    assert torch.equal(contract.hidden(one, tokens_BT), contract.hidden(same, tokens_BT))
    assert not torch.equal(contract.hidden(one, tokens_BT), contract.hidden(other, tokens_BT))
    assert one.scheme.fingerprint().startswith(type(one.scheme).__name__)


def test_what_is_no_scheme_is_refused(mine: None) -> None:
    for node, reason in (
        ({}, "no _target_"),
        ({"_target_": "somebodys_schemes.Nowhere"}, "cannot import"),
        ({"_target_": "torch.nn.Linear"}, "not a posexp"),
        ({"_target_": "somebodys_schemes.Kerple"}, "r2"),
        ({"_target_": "somebodys_schemes.Kerple", "r2": "steep"}, "r2"),
        ({"_target_": "somebodys_schemes.Kerple", "r2": 0.5, "r3": 1.0}, "r3"),
        ({"_target_": "posexp.schemes.rope.Rope", "base": 10000.0, "fraction": 0.4}, "odd"),
    ):
        with pytest.raises(Misuse, match=reason):
            from_config(node, contract.dims())


class Unheard(Scheme):
    """Says that it reads positions, and does not."""


class TrainedFor(Scheme):
    """Stops at the training length and does not say so."""

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        assert pos_BT.shape[1] <= self.dims.train_length
        return x_BTD


class DeadParameter(Scheme):
    def __init__(self, dims: Dims):
        super().__init__(dims)
        self.slope_H = nn.Parameter(torch.zeros(dims.n_head))

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        return self.slope_H.detach()[:, None] * gap_N


class SeesAll(Scheme):
    def attend(
        self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, pos_BT: Tensor, x_BTD: Tensor, window: Window
    ) -> Tensor:
        return (q_BHTC @ k_BHTC.transpose(-1, -2) * q_BHTC.shape[-1] ** -0.5).softmax(-1) @ v_BHTC


class CountsFromTheEnd(Scheme):
    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return x_BTD + (pos_BT.max() - pos_BT).float()[..., None].sin()


MISTAKES: list[tuple[Callable[..., Scheme], Callable[[Make], None]]] = [
    (Unheard, contract.positions_reach_the_model),
    (TrainedFor, contract.it_says_how_long_it_reaches),
    (DeadParameter, contract.it_learns),
    (SeesAll, contract.it_never_sees_the_future),
    (CountsFromTheEnd, contract.short_and_long_inputs_agree),
]


@pytest.mark.parametrize(("mistake", "check"), MISTAKES, ids=say)
def test_a_mistake_breaks_the_contract(mistake: type[Scheme], check: Callable[[Make], None]) -> None:
    options = {"base": 10000.0, "fraction": 1.0} if issubclass(mistake, Rope) else {}
    with pytest.raises(AssertionError):
        check(lambda dims: mistake(dims, **options))
