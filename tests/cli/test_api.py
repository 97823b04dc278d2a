"""`import posexp`: its functions do what the commands do, and leave the caller's process as it was."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from support.command import TINY, here, write_texts
from support.reports import SEEDS, labels, row, with_sums
from support.tiny_runs import weights_digest

import posexp
from posexp.config.sections import Split
from posexp.errors import Misuse, RunFailed, Stopped
from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.rows import rows_to_csv
from posexp.model import cpu
from posexp.output import console
from posexp.report.frame import COLUMNS, rows_of
from posexp.runs.experiment import Experiment
from posexp.runs.run import Run

SHORT = [*TINY, "eval.lengths=[8,16,64]", "eval.targets=256"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, and the trained runs rope and alibi."""
    folder = tmp_path_factory.mktemp("api")
    write_texts(folder / "text")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for scheme in ("rope", "alibi"):
            posexp.train(scheme, overrides=SHORT)
    return folder


@pytest.fixture
def rope(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(place)
    (folder,) = Path("results/default").glob("rope-*")
    return Run(folder)


@pytest.fixture
def group() -> list:
    """Rows of three seeds of rope and of alibi at 128 and 256 tokens, with losses by document."""
    found = [*SEEDS, *(replace(one, length=256, nll=one.nll + 0.3) for one in SEEDS)]
    found += [row(f"alibi-s{seed}-bb", length, 20.0 + seed) for seed in range(3) for length in (128, 256)]
    return [replace(with_sums(one), curve=one.scheme) for one in found]


# ---- the module


def test_the_import_is_light_and_names_its_functions():
    code = "import posexp, sys; print(dir(posexp)); print([m for m in ('torch', 'hydra', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, heavy = done.stdout.splitlines()
    assert all(f"'{name}'" in names for name in posexp.__all__) and heavy == "[]"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        posexp.trian  # noqa: B018


def test_the_version_is_one_in_module_command_and_provenance(rope: Run):
    printed = here("--version", cwd=rope.folder).out.split()
    about = rope.provenance()
    assert printed[:2] == ["posexp", posexp.__version__] and about["version"] == posexp.__version__
    assert about["commit"] is None or about["commit"] in "".join(printed)


# ---- train and evaluate


def test_a_run_is_that_of_the_command(rope: Run, place: Path):
    assert rope.status()["status"] == "done" and rope.rows.is_file() and not (rope.folder / "wandb").exists()
    assert "scheme=rope" in rope.provenance()["command"]
    answer = here("train", "+scheme=rope", *SHORT, cwd=place)
    assert answer.code == 0 and f"{rope.name}: already trained" in answer.err


def test_length_and_tokens_are_those_of_the_run(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    others = [word for word in SHORT if not word.startswith(("train.length", "train.tokens"))]
    run = posexp.train("none", length=8, tokens=500, overrides=others)
    assert (run.config().train.length, run.config().train.tokens, run.folder.parent.name) == (8, 500, "default")


@pytest.mark.parametrize("name", [str, lambda run: run.name, lambda run: run.folder.absolute(), lambda run: run])
def test_a_run_is_named_by_folder_and_by_name(rope: Run, name):
    named = str(rope.folder) if name is str else name(rope)
    assert posexp.evaluate(named, lengths=[32]).folder.samefile(rope.folder)
    assert 32 in set(posexp.rows(named).length)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: posexp.train("ropa"), "no scheme 'ropa', did you mean 'rope'"),
        (lambda: posexp.train("rope", overrides=["train.legnth=8"]), "no key 'train.legnth', did you mean"),
        (lambda: posexp.train("rope", length=0), "train.length"),
        (lambda: posexp.train("rope", overrides=["-m"]), "overrides cannot have -m: call the function once for each"),
        (lambda: posexp.train("rope,alibi"), "call the function once for each"),
        (lambda: posexp.evaluate("nothing"), "nothing is neither the folder of a run nor the name of one"),
        (lambda: posexp.evaluate("rope-*", lengths=[0]), "0"),
        (lambda: posexp.evaluate("rope-*", overrides=["eval.protocols=[best]"]), "best"),
        (lambda: posexp.rows("results/none"), "results/none is neither"),
        (lambda: posexp.rows("text/00.txt"), "text/00.txt has no rows"),
        (lambda: posexp.losses("rope-*", "same_targets", 48), "there are same_targets at 64"),
        (lambda: posexp.losses("rope-*", "same_targets", 64, colour="red"), "rows have no column 'colour'"),
        (lambda: posexp.losses("rope-*", "same_targets", 64, window=""), "no measurement with"),
        (lambda: posexp.plot(pd.DataFrame({"run": ["a"]})), "the frame lacks the columns"),
        (lambda: posexp.plot(posexp.rows()[:0]), "nothing to draw"),
        (lambda: posexp.load("rope-*", device="gpu"), "device=gpu"),
    ],
)
def test_a_mistake_is_one_line(rope: Run, call, line: str):
    with pytest.raises(Misuse) as error:
        call()
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def interrupting() -> Iterator[Any]:
    """A handler of the log that raises a signal when training begins."""

    class Interrupt(logging.Handler):
        signum = signal.SIGINT

        def emit(self, record: logging.LogRecord) -> None:
            if "training from step 0" in record.getMessage():
                signal.raise_signal(self.signum)

    handler = Interrupt()
    console.logger.addHandler(handler)
    yield handler
    console.logger.removeHandler(handler)


def test_ctrl_c_reaches_the_caller_and_the_same_call_continues(rope: Run, interrupting):
    words = [*SHORT, "group=interrupted"]
    with pytest.raises(KeyboardInterrupt):
        posexp.train("rope", overrides=words)
    (run,) = (Run(folder) for folder in Path("results/interrupted").glob("rope-*"))
    assert (run.status()["status"], run.status()["step"]) == ("stopped", 1)
    with pytest.raises(Misuse, match="no finished run"):
        posexp.load(run)
    assert posexp.train("rope", overrides=words).folder == run.folder
    assert run.status()["status"] == "done" and weights_digest(run) == weights_digest(rope)


def test_another_signal_reaches_the_handler_of_the_caller_once_the_run_is_saved(rope: Run, interrupting):
    interrupting.signum, received = signal.SIGTERM, []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: received.append(signum))
    try:
        with pytest.raises(Stopped):
            posexp.train("rope", overrides=[*SHORT, "group=terminated"])
    finally:
        signal.signal(signal.SIGTERM, before)
    (run,) = (Run(folder) for folder in Path("results/terminated").glob("rope-*"))
    assert received == [signal.SIGTERM] and run.status()["status"] == "stopped"


def test_another_thread_may_train(rope: Run):
    thread = threading.Thread(target=lambda: posexp.train("rope", overrides=[*SHORT, "group=thread"]))
    thread.start()
    thread.join()
    (run,) = (Run(folder) for folder in Path("results/thread").glob("rope-*"))
    assert weights_digest(run) == weights_digest(rope)


# ---- rows and plot


def test_rows_are_those_of_a_run_a_group_and_a_csv(rope: Run, place: Path):
    of_group = posexp.rows("results/default")
    assert tuple(of_group.columns) == COLUMNS and set(of_group.curve) >= {"rope", "alibi"}
    of_run = posexp.rows(rope)
    assert len(of_run) == len(rope.rows.read_text().splitlines()) and set(of_run.run) == {rope.name}
    assert here("report", cwd=place).code == 0
    for csv in ("results/default/report/rows.csv", "results/default/report"):
        pd.testing.assert_frame_equal(posexp.rows(csv), of_group, check_dtype=False)


def test_rows_have_the_verdicts_of_the_report(group: list, tmp_path: Path):
    (tmp_path / "rows.csv").write_text(rows_to_csv(group))
    frame = posexp.rows(tmp_path / "rows.csv")
    verdicts = {(one.place.curve, one.place.length): one for one in Pairs(group, labels(group)).verdicts()}
    assert {one.word for one in verdicts.values()} == {"degrades", "unchanged"}
    for line in frame.itertuples():
        if known := verdicts.get((line.curve, line.length)):
            change = known.cropped
            found = (line.effect, line.effect_low, line.effect_high, line.effect_p)
            assert line.verdict == known.word and found == (change.value, change.low, change.high, change.p)
        else:
            assert line.verdict == "" and np.isnan(line.effect)
    assert rows_of(frame) == group


def test_the_plot_has_one_curve_a_scheme_and_pools_the_seeds(group: list, tmp_path: Path):
    (tmp_path / "rows.csv").write_text(rows_to_csv(group))
    frame = posexp.rows(tmp_path / "rows.csv")
    figure = posexp.plot(frame)
    lines = [
        line
        for axes in figure.axes
        for line in axes.get_lines()
        if list(line.get_xdata()) == [128, 256] and line.get_linestyle() != "None"
    ]
    changes = {line.curve: 100 * np.expm1(line.effect) for line in frame.itertuples() if line.length == 256}
    assert len(changes) == 2
    assert sorted(line.get_ydata()[-1] for line in lines) == pytest.approx(sorted(changes.values()))
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"rope", "alibi"} <= words and "3 seeds" in figure.get_supxlabel()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_part_of_the_frame_is_drawn_alone(rope: Run):
    frame = posexp.rows()
    alone = posexp.plot(frame[(frame.curve == "rope") & (frame.protocol == "nonoverlapping")])
    words = {text.get_text() for axes in alone.axes for text in axes.texts}
    assert "rope" in words and "alibi" not in words and "nonoverlapping" in alone.get_supxlabel()


# ---- losses and load


def test_losses_are_those_of_the_rows_and_of_the_loaded_model(rope: Run):
    frame = posexp.losses(rope, "same_targets", 64)
    assert list(frame.columns) == ["target", "context", "document", "loss", "hit"]
    rows = posexp.rows(rope)
    (line,) = rows[(rows.protocol == "same_targets") & (rows.length == 64) & (rows.control == "")].itertuples()
    assert len(frame) == line.targets and frame.loss.mean() == pytest.approx(line.nll, abs=1e-6)
    assert frame.hit.mean() == pytest.approx(line.accuracy)
    model, tokenizer = posexp.load(rope)
    assert not model.training and tokenizer.get_vocab_size() == 300
    ids = Experiment(rope, torch.device("cpu")).store.split(Split.valid).ids
    for token in frame[:: len(frame) // 5].itertuples():
        read = torch.tensor(ids[token.target - token.context : token.target].astype(np.int64))[None]
        with torch.no_grad():
            logits_V = model.logits(model(read))[0, -1]
        target = int(ids[token.target])
        assert -float(logits_V.log_softmax(0)[target]) == pytest.approx(token.loss, abs=1e-4)
        assert bool(logits_V.argmax() == target) == token.hit


def test_losses_of_a_control_are_chosen_by_column(rope: Run):
    plain, cut = posexp.losses(rope, "same_targets", 64), posexp.losses(rope, "same_targets", 64, control="window")
    assert (plain.target == cut.target).all() and (plain.loss != cut.loss).any()
    with pytest.raises(Misuse, match="several such measurements: choose control= from"):
        posexp.losses(rope, "same_targets", 64, judged_from=None)


def bomb(path: Path) -> None:
    """Write losses that unpack to far more than their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("nll.npy", bytes(80 << 20))


def unequal(path: Path) -> None:
    found = dict(np.load(path, allow_pickle=False))
    np.savez_compressed(path, allow_pickle=False, **found | {"hit": found["hit"][1:]})


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:100]), bomb, unequal])
def test_missing_and_damaged_losses_are_one_line(rope: Run, damage):
    (path,) = (rope.folder / "losses").glob("nonoverlapping-64-*")
    kept = path.read_bytes()
    damage(path)
    try:
        with pytest.raises(RunFailed) as error:
            posexp.losses(rope, "nonoverlapping", 64)
    finally:
        path.write_bytes(kept)
    assert str(path) in str(error.value) and "evaluate again" in str(error.value) and "\n" not in str(error.value)


# ---- the caller's process


def state() -> dict[str, Any]:
    """What a call must not change."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import _utils

    root = logging.getLogger()
    return {
        "signals": {signum: signal.getsignal(signum) for signum in signal.valid_signals()},
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook),
        "root": (root.level, list(root.handlers), root.manager.disable, logging.raiseExceptions),
        "log": (console.logger.level, list(console.logger.handlers), console.logger.disabled),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        "denormal": float(torch.tensor(1e-42)),
        "matmul": (cpu.matmul(), torch.backends.mkldnn.enabled),
        "grad": (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "streams": (sys.stdout, sys.stderr),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg, sorted(ConfigStore.instance().repo)),
        "yaml": _utils.get_yaml_loader,
        "matplotlib": dict(matplotlib.rcParams.copy()),
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda run: posexp.train("rope", overrides=[*SHORT, "group=again", "seed=3"]),
        lambda run: posexp.train("rope", overrides=["train.lr=high"]),
        lambda run: posexp.evaluate(run, lengths=[24], overrides=["+transform=pi"]),
        lambda run: posexp.rows(run.folder.parent),
        lambda run: posexp.losses(run, "same_targets", 64),
        lambda run: posexp.plot(posexp.rows(run))._repr_png_(),
        lambda run: posexp.load(run),
    ],
    ids=["train", "failure", "evaluate", "rows", "losses", "plot", "load"],
)
def test_nothing_of_the_process_changes(rope: Run, call):
    import matplotlib.style  # noqa: F401 - what an import sets is not the call's doing

    torch.set_flush_denormal(False)  # earlier commands of this process may have set these
    cpu.set_matmul(cpu.MKL)
    torch.manual_seed(random.randrange(1 << 30))
    before = state()
    try:
        call(rope)
    except Misuse as error:
        assert "train.lr" in str(error)
    after = state()
    assert {name for name in before if after[name] != before[name]} == set()


def test_memory_is_kept_by_commands_only(rope: Run, place: Path, monkeypatch: pytest.MonkeyPatch):
    kept: list[str] = []
    monkeypatch.setattr(cpu, "keep_memory", lambda: kept.append("kept"))
    posexp.evaluate(rope, lengths=[64])
    assert kept == []
    assert here("eval", "--runs", rope.name, "--lengths", "64", cwd=place).code == 0
    assert kept == ["kept"]


def test_a_program_of_hydra_may_train(rope: Run):
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    with hydra.initialize(version_base="1.3", config_path=None):
        mine = GlobalHydra.instance().hydra
        assert posexp.train("rope", overrides=SHORT).name == rope.name
        assert GlobalHydra.instance().hydra is mine
        assert hydra.compose(overrides=["+a=1e3"]).a == 1000


PROGRAM = """
import json, logging, sys
from pathlib import Path
logging.getLogger("posexp").setLevel("WARNING")
import torch
torch.set_num_threads(2)
import posexp
from omegaconf import OmegaConf
posexp.train("rope", overrides=json.loads(sys.argv[1]))
posexp.plot(posexp.rows("results/program"))
small = torch.full((1 << 20,), 1e-30) * 1e-12
Path("own.yaml").write_text("seed: 1k")
flushed = int((small.double() == 0).sum())
heavy = [name for name in ("matplotlib.pyplot", "wandb") if name in sys.modules]
print(json.dumps([flushed, OmegaConf.load("own.yaml").seed, heavy, torch.get_float32_matmul_precision()]))
"""


@pytest.mark.slow
def test_a_program_keeps_its_worker_threads_its_yaml_its_log_and_its_figures(rope: Run):
    words = json.dumps([*SHORT, "group=program"])
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, "1k", [], "highest"] and done.stderr == ""


def test_a_sweep_runs_in_a_program_that_called_posexp_before(tmp_path: Path) -> None:
    """Hydra looks for plugins once in a process, and a call of posexp needs none of those of sweeps."""
    program = """
import sys
import posexp
try:
    posexp.train("rope", overrides=["data=files", "data.paths=nowhere"])
except posexp.errors.Misuse:
    pass
from posexp.cli.main import main
sys.argv = ["posexp", "train", "-m", "+scheme=rope,alibi", "data=files", "data.paths=nowhere"]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "nowhere" in done.stderr and "no cell was started" in done.stderr, done.stderr
