"""The README is true: its commands are taken, its scheme trains, what it points to is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import check_command, command_lines

from posexp.config.commands import COMMANDS
from posexp.config.hints import knobs_of
from posexp.config.sections import config_dir
from scripts.docs.common import fill_script

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("line", list(command_lines(README)))
def test_every_command_is_taken_by_hydra(line):
    check_command(line)


def test_every_knob_that_is_named_exists():
    known = {knob.key for schema in COMMANDS.values() for knob in knobs_of(schema)}
    named = set(re.findall(r"`((?:train|eval|data|model|wandb)\.[a-z_]+)", README))
    assert named <= known


@pytest.mark.slow
def test_the_example_scheme_trains_from_outside(tmp_path):
    code = re.search(r"```python\n# posexp/schemes/clipped.py\n(.*?)```", README, re.S)
    options = re.search(r"```yaml\n(.*?)```", README, re.S)
    assert code and options
    (tmp_path / "mine.py").write_text(code[1])
    (tmp_path / "mine" / "scheme").mkdir(parents=True)
    (tmp_path / "mine" / "scheme" / "clipped.yaml").write_text(options[1].replace("posexp.schemes.clipped", "mine"))
    (tmp_path / "text.txt").write_text("so it goes and goes again, " * 200)
    # `mine` is a file and a folder here: the module wins, since the folder holds no Python
    arguments = [
        "train --config-dir mine +scheme=clipped model.d_model=16 model.n_layer=1 model.n_head=2",
        "train.length=16 train.batch_tokens=64 train.tokens=640 data=files data.paths=text.txt data.vocab_size=300",
        "data.cache=cache eval.lengths=[16,32] eval.targets=16 eval.protocols=[nonoverlapping] wandb.mode=disabled",
    ]
    command = [sys.executable, "-m", "posexp", *" ".join(arguments).split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (rows,) = tmp_path.glob("results/default/clipped-s0-*/rows.jsonl")
    assert rows.read_text().count('"status": "ok"') == 2


def test_it_counts_the_schemes():
    assert f"{len(list((config_dir() / 'scheme').glob('*.yaml')))} schemes" in README


def test_it_is_short():
    assert len(README.splitlines()) <= 120 and len(README.split()) <= 1000


def test_its_table_has_the_numbers_of_the_study():
    numbers = fill_script().Numbers("markov")
    table = re.findall(r"^\| \[(.+?)\]\(http.*?\)(-log)? \|(.+)\|$", README, re.M)
    assert len(table) == 6
    curves = {"ALiBi": "alibi", "KERPLE": "kerple_log", "xPos": "xpos", "RoPE": "rope", "T5's bias": "t5"}
    curves["RoPE in a window, then none"] = "rnope_swa"
    for name, _, cells in table:
        curve = curves.get(name, name)
        wanted = [numbers.excess(curve, length) for length in (64, 128, 1024)]
        assert [cell.strip() for cell in cells.split("|")] == wanted, name


def test_what_it_points_to_is_there():
    pointed = re.findall(r"\]\(([^)#:]+)\)", README)
    assert pointed
    assert [path for path in pointed if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_its_python_runs(tmp_path):
    code = re.search(r"```python\n(import posexp.*?)```", README, re.S)
    assert code
    (tmp_path / "text.txt").write_text("so it goes and goes again, " * 9000)
    small = (
        "tokens=4_096, overrides=['data=files', 'data.paths=text.txt', 'data.cache=cache', 'eval.lengths=[128,256]']"
    )
    program = code[1].replace("tokens=1_000_000", small).replace("posexp.plot", "figure = posexp.plot")
    assert program.count(small) == 1
    command = [sys.executable, "-c", f"{program}assert figure.axes"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_its_make_targets_exist():
    named = set(re.findall(r"make ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test"} <= named <= targets
