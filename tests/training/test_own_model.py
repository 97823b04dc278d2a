"""The recipe of one's own model: its commands run, and the model does what posexp's own does.

Shape suffixes: B batch, T tokens, D width of the residual stream.
"""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from support.command import TINY, here, write_texts

from posexp.config.sections import AttentionPath, ModelConfig, config_dir
from posexp.errors import Misuse
from posexp.model.base import Model
from posexp.model.decoder import build_decoder
from posexp.schemes import options_of

RECIPE = (Path(__file__).resolve().parents[2] / "docs" / "recipes" / "own-model.md").read_text()
SIZES = ModelConfig(target="parallel.Parallel", d_model=32, n_layer=2, n_head=2)
TOKENS = torch.randint(101, (2, 12), generator=torch.Generator().manual_seed(0))
SCHEMES = sorted(file.stem for file in (config_dir() / "scheme").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the recipe's module, which other tests do not see."""
    code = re.search(r"```python\n(# parallel.py.*?)```", RECIPE, re.S)
    assert code
    (tmp_path / "parallel.py").write_text(code[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "parallel", raising=False)
    return tmp_path


def built(scheme: str, config: ModelConfig = SIZES) -> Model:
    return build_decoder(config, 101, options_of("scheme", scheme, {}), 64, seed=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_of_ones_own_attends_through_the_scheme(recipe: Path, scheme: str) -> None:
    model = built(scheme).eval()
    drawn = torch.random.get_rng_state()
    with torch.no_grad():
        whole_BTD = model(TOKENS)
        if not model.scheme.layer(0).acts("attend"):
            model.path = AttentionPath.dense
        torch.random.set_rng_state(drawn)
        torch.testing.assert_close(model(TOKENS, last=3), whole_BTD[:, -3:], rtol=0, atol=1e-5)
    model.train().loss(TOKENS[:, :-1], TOKENS[:, 1:]).backward()
    assert all(bool(weight.grad.any()) for weight in model.blocks.parameters() if weight.grad is not None)
    counts = model.parameter_counts()
    assert counts["decoder"] == 2 * (32 + 4 * 32 * 32 + 8 * 32 * 32 + 5 * 32) + 32 and counts["embedding"] == 101 * 32


def test_equal_seeds_draw_equal_weights(recipe: Path) -> None:
    one, other = built("rope").state_dict(), built("rope").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Parallel: pass", "is not a posexp.model.base.Model"),
        ("from posexp.model.base import Model\nclass Parallel(Model): pass", "must have `blocks`"),
        ("import missing_module", "cannot import the model parallel.Parallel"),
    ],
)
def test_another_class_is_refused(recipe: Path, code: str, said: str) -> None:
    (recipe / "parallel.py").write_text(code)
    with pytest.raises(Misuse, match=said):
        built("rope")


@pytest.mark.slow
def test_the_commands_of_the_recipe_run(recipe: Path) -> None:
    write_texts(recipe / "text")
    for line in re.findall(r"^posexp (.*)$", RECIPE, re.M):
        words = line.split()
        if words[0] == "train":
            given = {word.partition("=")[0] for word in words}
            words += [word for word in TINY if word.partition("=")[0] not in given] + ["--lengths", "16"]
        else:
            refused = here("eval", "--lengths", "64", "--runs", "rope-*", "wandb.mode=disabled", cwd=recipe)
            assert "parallel.Parallel" in refused.err and "trust=true" in refused.err
            words += ["wandb.mode=disabled"]
        answer = here(*words, cwd=recipe)
        assert answer.code == 0, answer.err
    runs = list((recipe / "results" / "default").iterdir())
    counts = sorted(json.loads((run / "provenance.json").read_text())["parameters"]["decoder"] for run in runs)
    assert len(set(counts)) == 3 and all(
        {16, 64} <= {json.loads(line)["length"] for line in (run / "rows.jsonl").read_text().splitlines()}
        for run in runs
    )
