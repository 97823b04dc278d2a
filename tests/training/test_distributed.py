"""Several processes train one run: the same losses, one folder, one end, whoever starts them and whichever dies.

Run as a program, this file is one of two processes that go through `joint_work` together.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.command import SCRIPT, TINY, here, posexp, write_texts
from support.sweeps import until
from support.tiny_runs import corpus, losses, tiny, weights_digest  # noqa: F401 - a fixture

from posexp.config.commands import TrainCommand
from posexp.config.components import options_of
from posexp.config.sections import EvalConfig, Optimizer, Strategy, TrainerConfig, config_dir
from posexp.errors import RunFailed, Stopped
from posexp.jobs.ranks import Place, place
from posexp.runs import checkpoint
from posexp.runs.run import Run
from posexp.storage import jsonl
from posexp.training import distributed, processes
from posexp.training.distributed import Ranks
from posexp.training.outcome import RankFailed
from posexp.training.train import train

pytestmark = pytest.mark.slow

# Of a loss in nats, two processes against one, in 28 steps of AdamW: sums in another order.
ROUNDING = 5e-6
OPTIONS = {"drope": {"inner": "t5", "keep": 0.5}}  # weights without a gradient in the second half
DRAWN = {"randomized", "pose", "offset"}  # by each process for its own windows: another number of them draws others
MIXERS = ("lstm", "mamba2", "gated_deltanet")  # in every second block, with t5 in the attention of the others
CASES = [
    ("rope", 1, Strategy.ddp),
    ("t5", 2, Strategy.ddp),
    ("t5", 2, Strategy.fsdp),
    ("fire", 1, Strategy.fsdp),  # has single numbers among its weights
    ("drope", 1, Strategy.ddp),
    ("drope", 1, Strategy.fsdp),
    *((mixer, 1, strategy) for mixer in MIXERS for strategy in Strategy),
    ("muon", 2, Strategy.ddp),  # t5 with that optimizer
    ("muon", 1, Strategy.fsdp),
]
ALL = os.environ.get("POSEXP_RANKS") == "all"  # what takes many minutes
if ALL:
    CASES += [(path.stem, 1, strategy) for path in (config_dir() / "scheme").glob("*.yaml") for strategy in Strategy]


def config_of(text: Path, folder: Path, scheme: str, accumulate: int = 1, strategy: Strategy = Strategy.ddp):
    config = tiny(text, folder, tokens=64 * 28, accumulate=accumulate)
    config.label = f"{scheme}-{strategy.value}"
    if scheme in MIXERS:
        config.mixer, scheme = options_of("mixer", scheme, {"attention_every": 2}), "t5"
    if scheme == "muon":
        config.train.optimizer, scheme = Optimizer.muon, "t5"
    config.scheme = options_of("scheme", scheme, OPTIONS.get(scheme, {}))
    config.eval = EvalConfig(lengths=[16], targets=64, controls=False)
    config.trainer = TrainerConfig(strategy=strategy)
    return config


def rows(run: Run) -> list[dict]:
    return [row for row in jsonl.read_lines(run.metrics, print) if "loss" in row]


def rewind(run: Run) -> None:
    """To the checkpoint before the last one, as if killed in between."""
    last = run.folder / "checkpoint" / f"step-{checkpoint.steps(run.folder / 'checkpoint')[0]:08d}.json"
    last.unlink()


def joint_work(text: Path, folder: Path) -> None:
    """What two processes do together, in one go: starting them is slow."""
    for scheme, accumulate, strategy in CASES:
        train(config_of(text, folder / "two", scheme, accumulate, strategy))
    for strategy in Strategy:  # what one process began
        train(config_of(text, folder / "begun by one", "t5", 1, strategy))
    for _ in range(2):
        config = config_of(text, folder / "again", "rope")
        config.model.dropout = 0.1
        run = train(config)
        if place().rank == 0:
            (folder / "again" / "weights").open("a").write(weights_digest(run) + "\n")
            rewind(run)
    config = config_of(text, folder / "failing", "rope")
    config.train.lr = config.train.clip = 1e9
    try:
        train(config)
    except RunFailed as error:
        (folder / f"failure {place().rank}").write_text(str(error))
    train(config_of(text, folder / "after a failure", "rope"))


@pytest.fixture(scope="module")
def joint(corpus, tmp_path_factory) -> Path:  # noqa: F811
    """The folder of all that two processes did, started as srun starts its tasks."""
    folder = tmp_path_factory.mktemp("joint")
    for strategy in Strategy:
        rewind(train(config_of(corpus, folder / "begun by one", "t5", 1, strategy)))
    told = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": str(os.getpid()), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(corpus), str(folder)],
            env={
                **os.environ,
                **told,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=900)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    told_twice = [line for line in said[1].splitlines() if "find_unused_parameters" not in line]  # PyTorch's own
    assert told_twice == [], "the second process leaves talking to the first"
    return folder


@pytest.mark.parametrize(("scheme", "accumulate", "strategy"), CASES)
def test_two_processes_have_the_losses_of_one(corpus, joint, tmp_path, scheme, accumulate, strategy):  # noqa: F811
    one = train(config_of(corpus, tmp_path, scheme, accumulate))
    two = Run.of(config_of(corpus, joint / "two", scheme, accumulate, strategy))
    pairs = list(zip(rows(one), rows(two), strict=True))
    assert all(a["step"] == b["step"] for a, b in pairs)
    far = max(abs(a["loss"] - b["loss"]) for a, b in pairs)
    # AdamW does not see the scale of a gradient
    norms_far = max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in pairs)
    print(f"{scheme}, {accumulate} at a time, {strategy.value}: {far:.1e}, {norms_far:.1e}")  # pytest -rP shows it
    assert far < (0.2 if scheme in DRAWN else ROUNDING)
    assert norms_far < (1 if scheme in DRAWN else 1e-4)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_run_goes_on_in_another_number_of_processes(corpus, joint, strategy):  # noqa: F811
    """From one to two, and from two to one: both end where one process ends."""
    one = losses(train(config_of(corpus, joint / "one", "t5")))
    begun = Run.of(config_of(corpus, joint / "begun by one", "t5", 1, strategy))
    assert losses(begun)[-1] == (28, pytest.approx(one[-1][1], abs=ROUNDING))
    assert [row["processes"] for row in jsonl.read_lines(begun.metrics, print) if row.get("status") == "running"] == [
        1,
        2,
    ]
    rewind(begun)
    train(config_of(corpus, joint / "begun by one", "t5", 1, strategy))
    assert losses(begun)[-1] == (28, pytest.approx(one[-1][1], abs=ROUNDING))


def test_the_same_number_of_processes_goes_on_bit_for_bit(joint):
    first, again = (joint / "again" / "weights").read_text().split()
    assert first == again


def test_a_loss_that_is_not_finite_ends_all_processes_with_one_reason_and_the_next_run_goes_on(corpus, joint):  # noqa: F811
    reasons = {(joint / f"failure {rank}").read_text() for rank in range(2)}
    assert len(reasons) == 1
    assert "no longer finite" in reasons.pop()
    assert Run.of(config_of(corpus, joint / "after a failure", "rope")).status()["status"] == "done"


def test_what_is_spread_over_processes_is_gone_before_they_part_when_they_are_stopped(corpus, tmp_path, monkeypatch):  # noqa: F811
    gone: list[str] = []

    class Spread:
        def __init__(self) -> None:
            self.itself = self
            weakref.finalize(self, gone.append, "module")

    def fit() -> None:
        module = Spread()
        raise Stopped(f"{type(module)} stopped", signal.SIGTERM)

    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "meet", lambda here, device: Ranks(here))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: gone.append("group"))
    with pytest.raises(Stopped), distributed.joined(tiny(corpus, tmp_path), torch.device("cpu")):
        fit()
    assert gone == ["module", "group"]


def test_random_draws_differ_from_process_to_process():
    seeds = [Ranks(Place(rank, 8)).seed(step) for rank in range(8) for step in range(100)]
    draws = {torch.rand(4, generator=torch.Generator().manual_seed(seed)) for seed in seeds}
    assert len({tuple(draw.tolist()) for draw in draws}) == len(seeds)
    assert Ranks(Place()).seed(7) == 7, "a run of one process draws what it drew before there were several"


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder / "text")
    return folder


def test_devices_starts_processes_that_make_one_run(texts):
    one = here("train", "+scheme=t5", *TINY, "results=one", cwd=texts)
    two = posexp("train", "+scheme=t5", *TINY, "results=two", "trainer.devices=2", cwd=texts)
    assert one.code == two.code == 0, two.err
    (run,) = (Run(path) for path in (texts / "two" / "default").iterdir())
    (other,) = (Run(path) for path in (texts / "one" / "default").iterdir())
    assert run.name == other.name, "how many train it does not define a run"
    assert {path.name for path in run.folder.iterdir()} == {path.name for path in other.folder.iterdir()}
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in losses(other)], abs=ROUNDING)
    assert len(jsonl.read_lines(run.rows, print)) == len(jsonl.read_lines(other.rows, print))
    assert "trainer.devices=2" in run.provenance()["command"]
    lines = two.err.splitlines()
    assert len(lines) == len(set(lines)), "each thing is said once"


def test_torchrun_starts_them_too(texts):
    torchrun = [str(SCRIPT.with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "-m", "posexp"]
    command = [*torchrun, "train", "+scheme=t5", *TINY, "results=torchrun", "trainer.strategy=fsdp"]
    done = subprocess.run(command, cwd=texts, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = (Run(path) for path in (texts / "torchrun" / "default").iterdir())
    assert run.status()["status"] == "done"
    assert jsonl.read_lines(run.rows, print)
    assert done.stderr.count("training from step 0") == 1


@pytest.mark.skipif(not ALL or sys.platform != "linux", reason="takes minutes: POSEXP_RANKS=all")
def test_a_run_killed_again_and_again_ends_with_the_weights_of_one_left_alone(texts):
    words = ["train", "+scheme=rope", *TINY, "train.tokens=153600", "trainer.devices=2"]
    draw, kills, seconds = random.Random(0), 0, []
    subprocess.run([str(SCRIPT), *words, "group=alone"], cwd=texts, check=True, timeout=600)
    while True:
        process = subprocess.Popen(
            [str(SCRIPT), *words, "group=killed"],
            cwd=texts,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        ranks: list[int] = []
        while kills < 12 and len(ranks) < 2 and process.poll() is None:
            ranks = below(process.pid)
        if kills < 12:
            time.sleep(draw.uniform(0, 8))
            if process.poll() is None and all(map(alive, ranks)):
                began = time.monotonic()
                os.kill(draw.choice(ranks), signal.SIGKILL)
                kills += 1
        text = process.communicate(timeout=300)[1]
        if process.returncode == 0:
            break
        seconds.append(time.monotonic() - began)
        assert process.returncode == 1 and "was killed by SIGKILL" in text.splitlines()[-1], text
        assert "Traceback" not in text
    print(f"{kills} kills; all ended after {max(seconds):.1f} s at most")
    assert kills > 2
    alone, killed = (Run(next((texts / "results" / group).iterdir())) for group in ("alone", "killed"))
    assert weights_digest(alone) == weights_digest(killed)
    assert losses(alone) == losses(killed)


@pytest.fixture
def training(texts, request) -> Iterator[tuple[subprocess.Popen, Run, list[int]]]:
    """A run without end in two processes, after its first checkpoint: the process that watches them, and their ids."""
    name = re.sub(r"\W", "-", request.node.name)
    words = ["+scheme=rope", *TINY, "train.tokens=100000000", f"group={name}", "trainer.devices=2"]
    process = subprocess.Popen(
        [str(SCRIPT), "train", *words],
        cwd=texts,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    group = texts / "results" / name
    for _ in range(1200):
        if list(group.glob("*/checkpoint/*.json")):
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    run = Run(next(group.iterdir()))
    try:
        yield process, run, below(process.pid)
    finally:
        process.kill()
        process.communicate()


def below(pid: int) -> list[int]:
    """The processes that train, in the order of their ranks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and "RANK=" in (path / "environ").read_text() + "RANK=":
                found += [int(path.name)] if b"spawn_main" in (path / "cmdline").read_bytes() else []
        except OSError:
            continue
    return sorted(found)


def listening(pids: list[int]) -> list[tuple[str, int]]:
    """The addresses at which processes take connections (proc(5): state 0A; an address is in the machine's order)."""
    own = {os.readlink(path) for pid in pids for path in Path(f"/proc/{pid}/fd").iterdir()}
    found = []
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                host, port = words[1].split(":")
                raw = b"".join(int(host[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(host), 8))
                found.append((socket.inet_ntop(family, raw), int(port, 16)))
    return found


def write_rubbish(address: tuple[str, int]) -> socket.socket:
    """A connection that has sent some, and is left open; another has sent more and was closed."""
    for rubbish in (random.Random(0).randbytes(4096), b"GET / HTTP/1.0\r\n\r\n"):
        connection = socket.create_connection(address, timeout=5)
        connection.sendall(rubbish)
        if len(rubbish) > 100:
            connection.close()
    return connection


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_process_that_dies_stops_the_others_in_one_line(training):
    process, run, ranks = training
    os.kill(ranks[1], signal.SIGKILL)
    began = time.monotonic()
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 1, text
    assert time.monotonic() - began < 30
    errors = [line for line in text.splitlines() if "error" in line]
    assert len(errors) == 1
    assert f"rank 1 (process {ranks[1]}) was killed by SIGKILL" in errors[0]
    assert "Traceback" not in text
    assert not any(map(alive, ranks))
    assert checkpoint.restore(run.folder / "checkpoint", pytest.fail) is not None
    assert "rank 1" in run.status()["reason"]


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("target", ["one that trains", *(["the one that watches"] if ALL else [])])
def test_rubbish_on_their_ports_ends_nothing_and_a_signal_to_any_of_them_stops_all_at_one_step(training, target):
    process, run, ranks = training
    found = listening([process.pid, *ranks])
    assert len(found) >= 2 and {host for host, _ in found} == {"127.0.0.1"}, "the store's, and Gloo's"
    left = [write_rubbish(address) for address in found]
    step = run.status()["step"]
    until(lambda: run.status()["step"] > step + 40, "training that goes on")
    assert all(map(alive, ranks))
    for connection in left:
        connection.close()
    signum = signal.SIGINT if target == "the one that watches" else signal.SIGTERM
    os.kill(process.pid if target == "the one that watches" else ranks[1], signum)
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signum, text
    assert "Traceback" not in text
    assert text.splitlines()[-1].endswith("the same command goes on")
    status = run.status()
    assert (status["status"], status["reason"]) == ("stopped", signum.name)
    assert checkpoint.steps(run.folder / "checkpoint")[0] == status["step"]
    assert not any(map(alive, ranks))


def fails_in_rank_1(config: TrainCommand) -> None:
    """While the other waits without end, as it would for a gradient."""
    if place().rank == 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    time.sleep(1000)


def test_an_error_in_one_process_names_it_and_stops_the_others(corpus, tmp_path):  # noqa: F811
    config = tiny(corpus, tmp_path)
    config.trainer.devices = 2
    began = time.monotonic()
    with pytest.raises(RankFailed, match=r"rank 1 on .*OutOfMemoryError: CUDA out of memory"):
        processes.spawn(fails_in_rank_1, config)
    assert time.monotonic() - began < 120  # the other would sleep for 1000 s


def stops_in_rank_1(config: TrainCommand) -> None:
    """While the other waits for it in PyTorch, where it handles no signal."""
    if place().rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    with distributed.joined(config, torch.device("cpu")):
        pass


def test_a_process_that_is_stopped_before_it_has_met_the_others_stops_them(corpus, tmp_path):  # noqa: F811
    config = tiny(corpus, tmp_path)
    config.trainer.devices = 2
    began = time.monotonic()
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        processes.spawn(stops_in_rank_1, config)
    assert time.monotonic() - began < 120  # PyTorch waits for half an hour


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["trainer.devices=3"], {}, "3 processes cannot share the 16 sequences of a step equally"),
        (["trainer.devices=4", "train.accumulate=8"], {}, "the 2 sequences of a micro-batch"),
        (["trainer.devices=0"], {}, "trainer.devices=0 must be at least 1"),
        (["trainer.strategy=dp"], {}, "trainer.strategy"),
        (["trainer.devices=4"], {"RANK": "0", "WORLD_SIZE": "2"}, "torchrun or srun has started 2 processes"),
    ],
)
def test_processes_that_cannot_work_are_refused_before_anything_is_written(
    texts, monkeypatch, words, environment, message
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answer = here("train", "+scheme=rope", *TINY, *words, "results=refused", cwd=texts)
    assert message in answer.refusal()
    assert not (texts / "refused").exists()


def test_a_batch_script_of_slurm_is_one_process_and_a_step_of_it_several(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert place() == Place()
    for name, value in {"STEP_NUM_TASKS": "4", "STEP_NUM_NODES": "2", "PROCID": "3", "LOCALID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert place() == Place(rank=3, size=4, local=1, one_machine=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    joint_work(Path(sys.argv[1]), Path(sys.argv[2]))
