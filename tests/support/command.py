"""The command as it is typed, in a fresh process or in this one, and a small world to type it in."""

import contextlib
import functools
import io
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from posexp.jobs.signals import STOPPING

SCRIPT = Path(sys.executable).parent / "posexp"
TINY = [
    *("model.d_model=32", "model.n_layer=1", "model.n_head=2"),
    *("data=files", "data.paths=text", "data.cache=cache", "data.vocab_size=300"),
    *("train.length=16", "train.tokens=2000", "train.batch_tokens=256", "train.checkpoint_every=4"),
    "wandb.mode=disabled",
]
WORDS = ["the", "of", "a", "model", "reads", "text", "and", "counts", "tokens", "in", "long", "lines", "one", "by"]


@dataclass
class Answer:
    code: int
    out: str
    err: str

    def refusal(self, code: int = 2) -> str:
        """The one line that says what is wrong: the last of stderr."""
        assert self.code == code, self
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("posexp: error:")] == lines[-1:], self.err
        assert "Traceback" not in self.err + self.out
        assert len(lines[-1]) < 400
        return lines[-1]


def posexp(*words: str, cwd: Path, **environment: str) -> Answer:
    """In a process of its own."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "COMP_"))}
    done = subprocess.run(
        [str(SCRIPT), *words],
        cwd=cwd,
        env={**own, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def here(*words: str, cwd: Path) -> Answer:
    """In this process, which has torch imported already."""
    from posexp.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    handlers = {signum: signal.getsignal(signum) for signum in STOPPING}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["posexp", *words])
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("HYDRA_FULL_ERROR", "0")
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main()
        finally:
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
    return Answer(code, out.getvalue(), err.getvalue())


def publish(*words: str, cwd: Path) -> tuple[int, str]:
    """scripts/publish in this process: its exit code and stderr."""
    path = str(Path(__file__).resolve().parents[2] / "scripts" / "publish")
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [path, *words])
        patch.setattr(sys, "path", list(sys.path))
        code = runpy.run_path(path)["main"]()
    return code, said.getvalue()


def write_texts(folder: Path) -> None:
    """60 documents of 200 to 790 words, which make a training, a validation and a test split."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    for n in range(60):
        (folder / f"{n:02}.txt").write_text(" ".join(draw.choices(WORDS, k=200 + 10 * n)))


def world(factory: pytest.TempPathFactory, folder: Path) -> Path:
    """`folder` with text/, a token store in cache/, and a group of two finished runs, rope and learned."""
    shutil.copytree(trained(factory.getbasetemp() / "trained"), folder, dirs_exist_ok=True)
    return folder


@functools.cache
def trained(folder: Path) -> Path:
    write_texts(folder / "text")
    answer = posexp("train", "-m", "+scheme=rope,learned", *TINY, "--lengths", "8,16,64", cwd=folder)
    assert answer.code == 0, answer.err
    return folder


def run_of(folder: Path, label: str = "rope") -> Path:
    (run,) = (folder / "results" / "default").glob(f"{label}-s0-*")
    return run


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
