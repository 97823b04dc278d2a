"""train.optimizer=muon: which weights it moves and how, the same bits after a pause, and runs of AdamW as they were.

Shape suffixes: N matrices, A rows, B columns.
"""

from collections import Counter
from pathlib import Path

import pytest
import torch
from support.command import here, run_of, world
from support.tiny_runs import losses, tiny, weights_digest
from torch.utils._python_dispatch import TorchDispatchMode

from posexp.config.commands import TrainCommand
from posexp.config.components import options_of, read_options
from posexp.config.digest import digest
from posexp.config.sections import AttentionGate, ModelConfig, Optimizer, TrainConfig, config_dir
from posexp.errors import RunFailed
from posexp.model.decoder import Decoder, build_decoder
from posexp.runs import checkpoint
from posexp.runs.run import Run
from posexp.training import optim
from posexp.training.train import train

QUICK = ["data.cache=cache", "wandb.mode=disabled", "eval.targets=64", "--lengths", "16,64"]
ROPE = options_of("scheme", "rope", {})
MUON = TrainConfig(optimizer=Optimizer.muon, weight_decay=0.5)
SCHEMES = sorted((config_dir() / "scheme").glob("*.yaml"))
MIXERS = sorted(path.stem for path in (config_dir() / "mixer").glob("*.yaml"))


def decoder(scheme=ROPE, n_layer: int = 2, mixer=None, **options) -> Decoder:
    config = ModelConfig(d_model=32, n_layer=n_layer, n_head=4, **options)
    return build_decoder(config, 64, scheme, 16, 0, mixer_node=mixer)


def with_gradients(model: Decoder, seed: int = 1) -> Decoder:
    tokens_BT = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(seed))
    model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    return model


def rows_of(model: Decoder) -> dict[str, tuple[int, ...]]:
    """The rows of the matrices in each weight that Muon moves, by the weight's name."""
    groups = optim.build_optimizer(model, MUON).param_groups
    found = {id(w): rows for group in groups for w, rows in zip(group["params"], group.get("rows", ()), strict=False)}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    return {name: found[id(weight)] for name, weight in model.named_parameters() if id(weight) in found}


def test_muon_moves_the_linear_layers_of_the_blocks_each_matrix_by_itself():
    model = decoder(options_of("scheme", "cpb", {}), n_kv_head=2, attention_gate=AttentionGate.head, short_conv=4)
    found = rows_of(model)
    width = model.blocks[0].mlp.out.in_features
    of_block = {"attention.qkv": (32, 16, 16), "attention.out": (32,), "attention.gate": (4,)}
    of_block |= {"mlp.gate_and_up": (width, width), "mlp.out": (32,)}
    assert found == {f"blocks.{i}.{name}.weight": rows for i in range(2) for name, rows in of_block.items()}
    assert any(weight.ndim == 2 for weight in model.scheme.parameters()), "a scheme without matrices shows nothing"


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_matrices_of_a_mixer_are_those_that_its_layers_stack(mixer):
    model = decoder(mixer=options_of("mixer", mixer, {}))
    weights, found = dict(model.named_parameters()), rows_of(model)
    assert {name for name in found if ".mixer." in name} >= {"blocks.0.mixer.out.weight"}
    assert all(sum(rows) == len(weights[name]) and weights[name].ndim == 2 for name, rows in found.items())
    assert not any("conv" in name or "lstm" in name for name in found)


@pytest.mark.slow  # importing PyTorch's optimizer takes seconds
@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has Muon from 2.9 on")
def test_steps_are_those_of_pytorch_on_each_matrix():
    model = decoder(n_kv_head=2)
    ours, found = optim.build_optimizer(model, MUON), rows_of(model)
    weights = {name: weight for name, weight in model.named_parameters() if name in found}
    pieces = {name: [p.clone() for p in w.detach().split(found[name])] for name, w in weights.items()}
    theirs = torch.optim.Muon(
        [p for some in pieces.values() for p in some],
        lr=MUON.lr,
        weight_decay=MUON.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    for step in range(3):
        with_gradients(model, step)
        for name, some in pieces.items():
            for piece, grad in zip(some, weights[name].grad.split(found[name]), strict=True):
                piece.grad = grad.clone()
        ours.step()
        ours.zero_grad()
        theirs.step()
    for name, weight in weights.items():
        moved = float((weight.detach() - start[name]).abs().max())
        torch.testing.assert_close(weight.detach(), torch.cat(pieces[name]), rtol=0, atol=0.01 * moved)


def test_other_weights_move_as_with_adamw():
    both = []
    for config in (MUON, TrainConfig(weight_decay=0.5)):
        model = with_gradients(decoder(options_of("scheme", "t5", {})))
        optim.build_optimizer(model, config).step()
        both.append(dict(model.named_parameters()))
    by_muon = rows_of(decoder())
    assert all(torch.equal(both[0][name], both[1][name]) != (name in by_muon) for name in both[0])


def test_a_matrix_is_made_orthogonal_and_as_large_as_a_step_of_adamw():
    draw = torch.Generator().manual_seed(0)
    shapes = [(24, 24), (24, 40), (40, 24), (3, 24)]
    made = optim.orthogonal([torch.randn(shape, generator=draw).bfloat16() for shape in shapes])
    for shape, x_AB in zip(shapes, made, strict=True):
        assert x_AB.shape == shape
        singular = torch.linalg.svdvals(x_AB) / (optim.RMS * max(shape) ** 0.5)
        assert float(singular.min()) > 0.3 and float(singular.max()) < 1.3
        assert float(x_AB.square().mean().sqrt()) == pytest.approx(optim.RMS, rel=0.25)


class Products(TorchDispatchMode):
    """Counts the matrix products."""

    def __init__(self):
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counted[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def number(self) -> int:
        return sum(self.counted[name] for name in ("mm", "addmm", "bmm", "baddbmm"))


def test_a_deeper_model_takes_no_more_products():
    """Which on a GPU are launches: with one for each matrix they would take longer than the products themselves."""
    counts = []
    for n_layer in (1, 4):
        model = with_gradients(decoder(n_layer=n_layer))
        optimizer = optim.build_optimizer(model, MUON)
        with Products() as products:
            optimizer.step()
        counts.append(products.number)
    assert counts[0] == counts[1] == 2 * 3 * optim.ITERATIONS, "two shapes, three products an iteration"


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_every_scheme_is_trained_by_adamw(path):
    model = with_gradients(decoder(read_options(path)).train())
    assert all(name.startswith("blocks.") for name in rows_of(model))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optim.build_optimizer(model, MUON).step()
    after = dict(model.named_parameters())
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert not any(torch.equal(after[name], before[name]) for name in before if name.startswith("blocks."))


def test_the_schemes_have_parameters_of_three_dimensions():
    assert any(w.ndim > 2 for path in SCHEMES for w in decoder(read_options(path)).scheme.parameters())


def test_muon_gives_a_run_another_name_and_adamw_does_not():
    plain, adamw, muon = (
        TrainCommand(scheme=ROPE, train=TrainConfig(**options))
        for options in ({}, {"optimizer": Optimizer.adamw}, {"optimizer": Optimizer.muon})
    )
    assert digest(plain) == digest(adamw) != digest(muon)


def test_the_state_of_one_optimizer_does_not_fit_the_other():
    model = with_gradients(decoder())
    optimizer = optim.build_optimizer(model, MUON)
    optimizer.step()
    saved = checkpoint.tensors(model, optimizer)
    checkpoint.apply(saved, model, optim.build_optimizer(model, MUON))
    with pytest.raises(RunFailed, match=r"its state of .*qkv\.weight differs"):
        checkpoint.apply(saved, model, optim.build_optimizer(model, TrainConfig()))


@pytest.mark.slow
def test_a_run_learns_and_resumes_bit_for_bit(corpus: Path, tmp_path: Path):
    config = tiny(corpus, tmp_path, optimizer=Optimizer.muon)
    run = train(config)
    whole, folder = weights_digest(run), run.folder / "checkpoint"
    first, last = losses(run)[0][1], losses(run)[-1][1]
    assert last < first - 1
    latest = checkpoint.steps(folder)[0]
    for path in folder.glob(f"step-{latest:08d}*"):
        path.unlink()
    train(config)
    assert checkpoint.steps(folder)[0] == latest and weights_digest(run) == whole


@pytest.mark.slow
def test_a_run_continues_one_of_another_optimizer(tmp_path_factory, tmp_path: Path):
    world(tmp_path_factory, tmp_path)
    for words in (["from=rope-s0-*", "train.optimizer=muon", "label=m"], ["from=m-s0-*", "label=inherits"]):
        answer = here("train", *words, "train.tokens=1024", *QUICK, cwd=tmp_path)
        assert answer.code == 0, answer.err
    answer = here("train", "from=m-s0-*", "train.optimizer=adamw", "label=a", "train.tokens=1024", *QUICK, cwd=tmp_path)
    assert answer.code == 0, answer.err
    found = {label: Run(run_of(tmp_path, label)) for label in ("m", "inherits", "a")}
    assert [run.config().train.optimizer.value for run in found.values()] == ["muon", "muon", "adamw"]
    assert all(run.status()["status"] == "done" for run in found.values())
