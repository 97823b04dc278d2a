"""Learning rate and weight decay of a scheme's parameters: the defaults change nothing, the options act."""

import pytest
import torch
from support.tiny_runs import tiny, weights_digest
from torch import Tensor

from posexp.config.commands import TrainCommand
from posexp.config.components import options_of
from posexp.config.digest import digest
from posexp.config.sections import ModelConfig, TrainConfig
from posexp.model.decoder import Decoder, build_decoder
from posexp.runs import checkpoint
from posexp.training import optim
from posexp.training.train import train

STEPS = 8
# The digests of runs of these schemes before the options of this file existed.
DIGESTS = {"t5": "10857e7a", "kerple_log": "2f2c204e", "kerple_power": "b16dabe9", "dape": "e04b3fff"}


def decoder(scheme: str) -> Decoder:
    torch.manual_seed(1)  # for the parameters that the scheme draws
    return build_decoder(ModelConfig(d_model=32, n_layer=2, n_head=2), 64, options_of("scheme", scheme, {}), 16, 0)


def two_groups(model: Decoder, config: TrainConfig) -> optim.AdamW:
    """The optimizer before schemes had options: matrices decay, vectors do not."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": config.weight_decay, "lr_multiplier": 1.0},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0, "lr_multiplier": 1.0},
    ]
    return optim.AdamW(groups, lr=config.lr, betas=optim.BETAS, fused=True)


def trained(scheme: str, config: TrainConfig, build=optim.build_optimizer) -> dict[str, Tensor]:
    """The weights after STEPS steps on random tokens."""
    model = decoder(scheme)
    optimizer = build(model, config)
    generator = torch.Generator().manual_seed(2)
    for step in range(STEPS):
        optim.set_learning_rate(optimizer, step, config)
        model.scheme.progress(step / STEPS)
        tokens_BT = torch.randint(64, (4, 17), generator=generator)
        model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: weight.detach() for name, weight in model.named_parameters()}


def config(**options) -> TrainConfig:
    return TrainConfig(length=16, tokens=STEPS * 64, batch_tokens=64, lr=1e-2, weight_decay=0.5, **options)


@pytest.mark.parametrize("scheme", DIGESTS)
def test_runs_keep_their_names(scheme):
    assert digest(TrainCommand(scheme=options_of("scheme", scheme, {}))) == DIGESTS[scheme]


@pytest.mark.parametrize(("option", "value"), [("scheme_lr", 2.0), ("scheme_weight_decay", False)])
def test_an_option_gives_a_run_another_name(option, value):
    node = options_of("scheme", "t5", {})
    assert digest(TrainCommand(scheme=node, train=TrainConfig(**{option: value}))) != DIGESTS["t5"]


@pytest.mark.parametrize("scheme", ["t5", "kerple_log", "learned", "cpb"])
def test_by_default_weights_are_bit_for_bit_those_of_one_rule_for_all(scheme):
    found, wanted = trained(scheme, config()), trained(scheme, config(), two_groups)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_learning_rate_of_the_scheme_is_a_multiple():
    optimizer = optim.build_optimizer(decoder("t5"), config(scheme_lr=3.0))
    optim.set_learning_rate(optimizer, 0, config(scheme_lr=3.0))
    own = {id(weight) for weight in optimizer.param_groups[-1]["params"]}
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[-1] == 3 * rates[0] == 3 * optim.learning_rate(0, config())
    assert len(own) == 1 and len(rates) == 3


def test_without_a_learning_rate_a_scheme_keeps_its_start():
    weights, start = trained("kerple_log", config(scheme_lr=0.0)), dict(decoder("kerple_log").named_parameters())
    for name, weight in weights.items():
        assert torch.equal(weight, start[name].detach()) == name.startswith("scheme."), name


@pytest.mark.parametrize("scheme", ["t5", "cpb", "learned"])
def test_weight_decay_of_the_scheme_can_be_turned_off(scheme):
    for on in (True, False):
        model = decoder(scheme)
        groups = optim.build_optimizer(model, config(scheme_weight_decay=on)).param_groups
        decayed = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}
        for name, weight in model.named_parameters():
            assert (id(weight) in decayed) == (weight.ndim >= 2 and (on or not name.startswith("scheme."))), name
    with_decay, without = trained(scheme, config()), trained(scheme, config(scheme_weight_decay=False))
    assert any(not torch.equal(with_decay[name], without[name]) for name in without if name.startswith("scheme."))


@pytest.mark.slow
def test_a_run_with_its_own_rule_for_the_scheme_resumes_bit_for_bit(corpus, tmp_path):
    options = {"tokens": 64 * 20, "scheme_lr": 3.0, "scheme_weight_decay": False}
    run = train(tiny(corpus, tmp_path, "learned", **options))
    whole = weights_digest(run)
    folder = run.folder / "checkpoint"
    last, before = checkpoint.steps(folder)
    assert (last, before) == (20, 14)
    for path in folder.glob(f"step-{last:08d}*"):
        path.unlink()
    train(tiny(corpus, tmp_path, "learned", **options))
    assert checkpoint.steps(folder)[0] == last and weights_digest(run) == whole
    plain = train(tiny(corpus, tmp_path, "learned", tokens=64 * 20))
    assert weights_digest(plain) != whole
