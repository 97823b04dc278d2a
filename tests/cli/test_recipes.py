"""The recipes are true: their code runs, and the pages name every window and transform."""

import re
from importlib import import_module
from pathlib import Path

import torch

from posexp.config.sections import config_dir
from scripts.docs.common import fill_script

ROOT = Path(__file__).resolve().parents[2]
OWN_SCHEME = (ROOT / "docs" / "recipes" / "own-scheme.md").read_text()
EXTENSION = (ROOT / "docs" / "recipes" / "context-extension.md").read_text()


def test_the_scheme_is_that_of_the_readme():
    example = re.compile(r"```python\n# posexp/schemes/clipped.py\n.*?```", re.S)
    there, here = (example.search(text) for text in ((ROOT / "README.md").read_text(), OWN_SCHEME))
    assert there and here and here[0] == there[0]  # tests/cli/test_readme.py trains it


def test_the_example_runs_in_somebody_elses_model():
    code = re.search(r"```python\n(from posexp.attention.*?)```", OWN_SCHEME, re.S)
    assert code and len([line for line in code[1].splitlines() if line.strip()]) <= 10

    class Block:
        def project(self, x_BTD):
            return (x_BTD.unflatten(2, (8, 64)).transpose(1, 2),) * 3

        def merge(self, mixed_BHTC):
            return mixed_BHTC.transpose(1, 2).flatten(2)

    given = {"B": 2, "T": 20, "x_BTD": torch.randn(2, 20, 512), "blocks": [Block(), Block()]}
    before_BTD = given["x_BTD"]
    exec(code[1], given)
    assert given["x_BTD"].shape == (2, 20, 512) and bool(given["x_BTD"].isfinite().all())
    given["x_BTD"].sum().backward()
    assert not torch.equal(given["x_BTD"], before_BTD) and given["scheme"].r1_H.grad.any()


def test_every_hook_and_promise_is_named():
    from posexp.schemes import Scheme

    mine = {name for name in vars(Scheme) if not name.startswith("_")} - {"acts", "extra_repr", "fingerprint"}
    assert mine == set(re.findall(r"^\| `(\w+)[(`]", OWN_SCHEME, re.M))


def test_every_formula_that_is_named_exists():
    formulas = re.search(r"The formulas alone: (.*?) and the others", OWN_SCHEME, re.S)
    assert formulas
    named = re.findall(r"`(\w+)\.(\w+)`", formulas[1].replace("`posexp.schemes`", ""))
    assert len(named) >= 10
    for module, function in named:
        place = "transforms" if (config_dir() / "transform" / f"{module}.yaml").is_file() else "schemes"
        assert callable(getattr(import_module(f"posexp.{place}.{module}"), function)), function


def test_every_window_and_transform_has_a_line():
    windows, _, transforms = EXTENSION.partition("## Transforms")
    for kind, text in (("window", windows), ("transform", transforms)):
        lines = re.findall(r"^\| `(\w+)` \| [a-z]", text, re.M)
        assert set(lines) == {f.stem for f in (config_dir() / kind).glob("*.yaml")}


def test_its_perplexities_are_those_of_the_study():
    numbers = fill_script().Numbers("schemes")
    table = re.findall(r"^\| `(\w+)` \| (\d+\.\d) \| (\S+) \|$", EXTENSION, re.M)
    assert len(table) == 10
    for name, ppl, change in table:
        curve = f"rope · {name}"
        assert (numbers.ppl(curve, 2048), numbers.change(curve, 2048)) == (ppl, change), name
