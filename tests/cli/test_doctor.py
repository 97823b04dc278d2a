"""posexp doctor on machines that lack something: each lack is one line that says what to do."""

import os
import socket
import types
from concurrent.futures import Future
from pathlib import Path

import pytest
from support.command import here, posexp, world

from posexp.config.commands import DoctorCommand
from posexp.doctor import machine, outcome, pytorch, services
from posexp.doctor.findings import Mark
from posexp.storage import locks

ROOT = Path(__file__).resolve().parents[2]
GPU = {"name": "NVIDIA H200", "free": 1 << 37, "total": 1 << 37, "capability": "9.0"}
FACTS = {
    "version": "2.13.0",
    "cuda": "13.0",
    "warnings": [],
    "device": "cuda",
    "gpus": [GPU],
    "threads": 8,
    "precision": "bfloat16",
    "native_bfloat16": True,
    "kernels": {"rope": "sdpa causal", "alibi": "flex"},
    "flash_attention": "FA3",
    "triton": True,
    "matmul": "mkl",
    "flushes_denormals": True,
}


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.slow
def test_a_machine_that_works_gets_a_line_for_each_part_and_nothing_is_written(tmp_path):
    answer = posexp("doctor", f"cache={tmp_path}/cache", cwd=tmp_path, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1")
    assert answer.code == 0, answer
    marks, names = zip(*(line.split()[:2] for line in answer.out.splitlines()), strict=True)
    assert {"python", "torch", "precision", "attention", "memory", "results", "cache", "TMPDIR"} <= set(names)
    assert {"stores", "hub", "wandb", "slurm", "extras"} <= set(names) and set(marks) <= {"ok", "note"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_torch_that_cannot_be_imported_is_a_line_and_exit_code_1(tmp_path):
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13 is missing')")
    answer = posexp("doctor", cwd=tmp_path, PYTHONPATH=f"{ROOT}:{tmp_path}/broken", HF_HUB_OFFLINE="1")
    assert answer.refusal(1).endswith("before this is solved: torch")
    (line,) = (line for line in answer.out.splitlines() if line.startswith("problem"))
    assert "libcudart.so.13 is missing" in line and "→ python -c 'import torch'" in line


@pytest.mark.slow
def test_a_results_folder_that_cannot_exist_is_a_problem(tmp_path):
    (tmp_path / "file").touch()
    answer = here("doctor", "results=file/results", cwd=tmp_path)
    assert answer.refusal(1).endswith("solved: results")
    assert f"{tmp_path}/file is not a folder → choose another folder: results=<folder>" in answer.out


def test_an_error_of_a_probe_is_a_line():
    future: Future = Future()
    future.set_exception(ValueError("of\nnobody"))
    (found,) = outcome("slurm", future)
    assert found.mark is Mark.note and found.fact == "cannot be examined: ValueError: of nobody"


@pytest.mark.parametrize(
    ("blocks", "inodes", "mark", "says"),
    [
        (0, 9, Mark.problem, "0.0 GiB of 7.8 GiB free: full"),
        (1000, 0, Mark.problem, "without free inodes"),
        (1000, 9, Mark.note, "3.9 GiB of 7.8 GiB free"),
        (2000, 9, Mark.ok, "7.8 GiB of 7.8 GiB free"),
    ],
)
def test_a_full_disk_is_a_problem_and_an_almost_full_one_a_note(tmp_path, monkeypatch, blocks, inodes, mark, says):
    disk = types.SimpleNamespace(f_bavail=blocks, f_frsize=1 << 22, f_blocks=2000, f_files=10, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    found = machine.disks({"cache": str(tmp_path / "cache")})
    assert [each.name for each in found] == ["cache", "TMPDIR"]
    assert found[0].mark is mark and says in found[0].fact
    assert ("data.cache=<folder>" in found[0].remedy) == (mark is not Mark.ok)


def test_stores_in_use_half_built_and_damaged_are_named(tmp_path):
    (found,) = machine.stores(str(tmp_path))
    assert "no token stores" in found.fact and not found.remedy
    tokens = tmp_path / "tokens"
    (tokens / "0123456789abcdef").mkdir(parents=True)
    (tokens / "0000000000000001.xyz-building").mkdir()
    with locks.hold(tokens / "0000000000000002.lock", tokens / "0000000000000002.holder.json"):
        count, damaged, left, busy = (each.fact for each in machine.stores(str(tmp_path)))
    assert "1 token store, 0 MB" in count and "0123456789abcdef is damaged: store.json is missing" in damaged
    assert "0000000000000001 was left half built" in left
    assert f"0000000000000002 is being built by process {os.getpid()}" in busy


def test_a_sound_store_is_only_counted(tmp_path_factory, tmp_path):
    (found,) = machine.stores(str(world(tmp_path_factory, tmp_path) / "cache"))
    assert found.mark is Mark.ok and found.fact.startswith("1 token store,")


def test_a_hub_is_reached_or_not_or_not_to_be_used(tmp_path, monkeypatch):
    for name in services.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "hub" / "models--gpt2").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        (found,) = services.hub()
        assert found.mark is Mark.ok and "can be reached; 1 models and 0 datasets" in found.fact
    (found,) = services.hub()
    assert "cannot be reached" in found.fact and "data=stdlib" in found.remedy
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (found,) = services.hub()
    assert "not used" in found.fact and found.remedy == "unset HF_HUB_OFFLINE to fetch more"


def test_wandb_needs_a_key_and_its_server(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (found,) = services.wandb()
    assert "no API key" in found.fact and found.remedy.endswith("wandb login")
    (tmp_path / "none").write_text("machine 127.0.0.1 login user password secret\n")
    (tmp_path / "none").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        (found,) = services.wandb()
        assert found.mark is Mark.ok and "secret" not in found.fact
    (found,) = services.wandb()
    assert "cannot be reached" in found.fact and found.remedy.endswith("the network")


def test_slurm_is_absent_present_or_silent(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (found,) = services.slurm()
    assert found.fact == "no sbatch here: sweeps run on this machine" and found.mark is Mark.ok
    program(tmp_path / "bin", "sbatch", "echo slurm 24.05.1")
    program(tmp_path / "bin", "sinfo", "echo 'gpu*  up   1-00:00:00'; echo 'long up infinite'")
    (found,) = services.slurm()
    assert found.fact == "slurm 24.05.1, partitions (state, time limit): gpu* up 1-00:00:00, long up infinite"
    program(tmp_path / "bin", "sinfo", "echo 'sinfo: error: no controller' >&2; exit 1")
    assert "sinfo lists nothing: sinfo: error: no controller" in services.slurm()[0].fact
    program(tmp_path / "bin", "sinfo", "exec /bin/sleep 5")
    monkeypatch.setattr(services, "PATIENCE", 0.2)
    assert "no answer in time" in services.slurm()[0].fact


def test_what_a_gpu_computes_with_is_named():
    found = {each.name: each for each in pytorch.of_facts(FACTS)}
    assert found["gpu 0"].fact == "NVIDIA H200, 128 GiB of 128 GiB free, capability 9.0"
    assert (
        found["precision"].fact.startswith("bfloat16")
        and "alibi: flex, flash attention: FA3" in found["attention"].fact
    )
    old = {each.name: each for each in pytorch.of_facts({**FACTS, "native_bfloat16": False, "triton": False})}
    assert old["precision"].remedy.startswith("train.precision=float32")
    assert "fails without Triton" in old["attention"].fact and old["attention"].remedy == "train.compile=false"


def test_the_packages_of_every_extra_are_looked_up():
    assert set(services.packages_of("gguf")) == {"transformers", "gguf", "accelerate"}
    (found,) = services.extras()
    assert "slurm" in found.fact + found.remedy and "dev" not in found.fact


def test_the_fakes_cover_what_torch_facts_prints():
    from posexp.doctor.torch_facts import facts

    known = facts()
    assert known.keys() == FACTS.keys() and known["kernels"].keys() == FACTS["kernels"].keys()
    assert {each.name for each in pytorch.of_facts(known)} >= {"torch", "precision", "attention"}


def test_doctor_has_defaults_of_the_other_commands():
    from posexp.config.commands import OfGroup
    from posexp.config.sections import DataConfig

    assert DoctorCommand().results == OfGroup().results and DoctorCommand().cache == DataConfig().cache
