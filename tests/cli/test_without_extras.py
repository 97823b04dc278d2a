"""What the README and the guide type works without the extras, and what needs one names it."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.command import TINY, Answer, write_texts

ROOT = Path(__file__).resolve().parents[2]


def core() -> set[str]:
    """The names of the distributions that `pip install posexp` installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo, found = [Requirement(line) for line in project["dependencies"]], set()
    while todo:
        needed = todo.pop()
        for extra in ("", *needed.extras):
            if (needed.name.lower(), extra) not in found:
                found.add((needed.name.lower(), extra))
                lines = map(Requirement, distribution(needed.name).requires or ())
                todo += [one for one in lines if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with site/, which has links to the packages of core and nothing else, and text/."""
    folder = tmp_path_factory.mktemp("core")
    (folder / "site").mkdir()
    for name in core():
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / "site" / top
            if not link.exists():
                link.symlink_to(Path(str(distribution(name).locate_file(top))))
    write_texts(folder / "text")
    return folder


def posexp(place: Path, *words: str) -> Answer:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place / 'site'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", "-m", "posexp", *words]  # -S: without site-packages
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def sweep(place) -> Answer:
    return posexp(place, "train", "-m", "+scheme=rope,alibi", *TINY)


def test_a_sweep_needs_no_extra(place, sweep):
    assert not (place / "site" / "submitit").exists() and not (place / "site" / "hydra_plugins").exists()
    assert sweep.code == 0, sweep.err


@pytest.mark.slow
@pytest.mark.usefixtures("sweep")
@pytest.mark.parametrize(
    "words",
    [
        ("eval", "--lengths", "8,32"), ("report", "--html"), ("compare", "rope", "alibi"), ("runs",),
        ("schemes",), ("doctor",), ("check", "rope"), ("bench", "alibi", "length=32", "lengths=[32]", "rounds=1"),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_command_needs_no_extra(place, words):
    answer = posexp(place, *words)
    assert "unexpected" not in answer.err and "Traceback" not in answer.err, answer.err
    assert answer.code == 0, answer.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("train", "-m", "+scheme=rope", "hydra/launcher=submitit_slurm"), "posexp[slurm]"),
        (("train", "-m", "+scheme=rope", "hydra/launcher=joblib"), "posexp[joblib]"),
        (("train", "+scheme=rope", "loggers=[tensorboard]", "seed=7"), "posexp[tensorboard]"),
        (("bench", "--peers"), "posexp[peers]"),
        (("check", "hf=nowhere"), "posexp[hf]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_an_extra_names_it(place, words, extra):
    more = TINY if words[0] == "train" else ()
    answer = posexp(place, *words, *more)
    assert answer.code in (1, 2) and f"pip install '{extra}'" in answer.err, answer.err
    assert "Traceback" not in answer.err
