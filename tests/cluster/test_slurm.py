"""A sweep on a real SLURM of one machine (scripts/slurm-local): whatever becomes of its jobs, the same comes out."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.command import SCRIPT, Answer, here, posexp
from support.sweeps import pace, runs_of, same_uninterrupted, slow_world, starts, steps_done, until, weights

from posexp.runs.run import Run
from posexp.runs.status import run_status

LOCAL = Path(__file__).resolve().parents[2] / "scripts" / "slurm-local"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
ABSENT = [program for program in NEEDED if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(bool(ABSENT), reason=f"no {', '.join(ABSENT)}: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="starting SLURM needs root"),
]
pytest.importorskip("submitit", reason="no submitit: pip install 'posexp[slurm]'")

HELD = 6  # seconds after which SLURM lets a job that was put back start at once, if asked; else it waits two minutes


@dataclass
class Cluster:
    """A SLURM of two cores, and the folder that jobs are submitted in."""

    folder: Path
    environment: dict[str, str]
    words: list[str]

    def posexp(self, *words: str) -> Answer:
        """In the cluster's environment, and in this process unless another one is to be left behind."""
        if "--detach" in words:
            return posexp(*words, cwd=self.folder, **self.environment)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return here(*words, cwd=self.folder)

    def sweep(self, *words: str) -> Answer:
        return self.posexp("train", "-m", *self.words, *LAUNCHER, *words)

    def run(self, *words: str) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(words, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """State by id of the jobs in the partition main that are not over."""
        lines = self.run("squeue", "--noheader", "--array", "--partition=main", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def let_start(self) -> None:
        """Jobs that were put back may start again."""
        time.sleep(HELD)
        for id_, state in self.jobs().items():
            if state == "PENDING":
                self.run("scontrol", "update", f"JobId={id_}", "StartTime=now")

    def table(self, group: str) -> str:
        answer = self.posexp("runs", "--group", group)
        assert answer.code == 0 and answer.err == "", answer.err
        return answer.out


LAUNCHER = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.partition=main"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("slurm")
    words = slow_world(folder)
    environment = {**os.environ, "SLURM_LOCAL_CPUS": "2"}
    done = subprocess.run([LOCAL, "up", folder / "slurm"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"(\w+)=(\S+)", done.stdout))
    told["PATH"] = told["PATH"].replace("$PATH", os.environ["PATH"])
    try:
        yield Cluster(
            folder, {**told, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}, words
        )
    finally:
        subprocess.run([LOCAL, "down", folder / "slurm"], check=True, timeout=60)
        assert not (folder / "slurm").exists()


@dataclass
class Story:
    """What was seen while a sweep of three cells went through everything at once."""

    runs: list[Run]
    seen: dict[str, str]


@pytest.fixture(scope="module")
def story(cluster: Cluster) -> Story:
    seen: dict[str, str] = {}
    pace(cluster.folder, 0.3)
    words = [*cluster.words, *LAUNCHER, "seed=0,1,2", "group=story"]
    submitting = subprocess.Popen(
        [SCRIPT, "train", "-m", *words],
        cwd=cluster.folder,
        env={**os.environ, **cluster.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: len(cluster.jobs()) == 3, "three jobs")
    submitting.kill()
    submitting.wait()
    runs = runs_of(cluster.folder, "story")
    first, second, third = runs
    until(lambda: steps_done(first) and steps_done(second), "two cells that train")
    seen["running"] = cluster.table("story")
    seen["twice"] = cluster.sweep("seed=0,1,2", "group=story").err

    cluster.run("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "sleep 1")
    until(lambda: all(run.status()["status"] == "stopped" for run in (first, second)), "two cells preempted")
    until(lambda: starts(third) or list(cluster.jobs().values()).count("PENDING") == 3, "both in the queue again")
    seen["preempted"] = cluster.table("story")
    until(lambda: steps_done(third), "the third cell")
    os.kill(json.loads((third.folder / "job.json").read_text())["pid"], signal.SIGKILL)
    until(lambda: run_status(third, None, print).state == "interrupted", "the third cell dead")
    cluster.let_start()

    until(lambda: starts(first) == 2 and steps_done(first)[-1] > first.status()["step"] - 1, "the first cell again")
    job = json.loads((first.folder / "job.json").read_text())["job"]
    cluster.run("scancel", "--signal=USR2", job)  # what SLURM sends before a time limit
    until(lambda: first.status()["status"] == "stopped", "the first cell stopped")
    until(lambda: cluster.jobs().get(job) == "PENDING", "it is in the queue again")
    pace(cluster.folder, 0)
    cluster.let_start()
    until(lambda: not cluster.jobs(), "the queue is empty")
    seen["killed"] = cluster.table("story")
    seen["again"] = cluster.sweep("seed=0,1,2", "group=story", "--detach").err
    until(lambda: run_status(third, None, print).state == "done", "the third cell done")
    seen["done"] = cluster.table("story")
    seen["nothing"] = cluster.sweep("seed=0,1,2", "group=story").err
    return Story(runs, seen)


def lines(table: str) -> list[list[str]]:
    """The words of each run's line."""
    return [line.split() for line in table.splitlines() if line.startswith("slow-")]


def test_runs_shows_who_runs_where_and_who_waits_for_which_job(story: Story) -> None:
    first, second, third = lines(story.seen["running"])
    assert first[1] == second[1] == "running" and third[1] == "waiting"
    assert first[2].endswith("/100") and int(first[2].partition("/")[0]) >= 10
    assert first[6].endswith("_0") and second[6].endswith("_1") and third[-1].endswith("_2")
    assert first[7] == os.uname().nodename and re.match(r"\d\d-\d\d", first[8])
    assert "in SLURM's queue" in story.seen["running"]


def test_what_waits_or_runs_is_not_submitted_again(story: Story) -> None:
    assert "3 cells: 2 being worked on, 1 waiting in SLURM, 0 to do" in story.seen["twice"]


def test_a_preempted_job_saves_and_is_put_back(story: Story) -> None:
    assert [line[1] for line in lines(story.seen["preempted"])[:2]] == ["requeued", "requeued"]
    assert starts(story.runs[1]) == 2


def test_a_job_that_was_told_its_time_is_over_saves_and_is_put_back(story: Story) -> None:
    assert starts(story.runs[0]) == 3
    log = Path(json.loads((story.runs[0].folder / "job.json").read_text())["log"]).read_text()
    assert "SIGTERM: saving" in log and "SIGUSR2: saving" in log and "Traceback" not in log


def test_a_job_killed_without_a_word_is_shown_with_its_log_and_done_by_the_same_command(story: Story) -> None:
    assert [line[1] for line in lines(story.seen["killed"])] == ["done", "done", "interrupted"]
    assert re.search(r"log: \S+/story/jobs/\d+_2/\d+_2_0_log.out", story.seen["killed"])
    assert "3 cells: 2 done, 1 to do" in story.seen["again"] and starts(story.runs[2]) == 2
    assert [line[1] for line in lines(story.seen["done"])] == ["done", "done", "done"]
    assert "3 cells: 3 done, 0 to do" in story.seen["nothing"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_whatever_happened_the_weights_are_those_of_an_uninterrupted_run(
    story: Story, cluster: Cluster, number: int
) -> None:
    run = story.runs[number]
    assert weights(run) == weights(same_uninterrupted(run, cluster.words, cluster.folder))
    steps = steps_done(run)
    assert steps == sorted(set(steps)) and steps[-1] == 100


def test_a_job_preempted_while_python_starts_is_put_back_too(story: Story, cluster: Cluster) -> None:
    late = cluster.folder / "sitecustomize.py"
    late.write_text("import os, time\nif 'SLURM_PROCID' in os.environ: time.sleep(8)\n")
    assert cluster.sweep("seed=5", "group=early", "--detach").code == 0
    until(lambda: "RUNNING" in cluster.jobs().values(), "a job that starts")
    cluster.run("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "sleep 1")
    until(lambda: "PENDING" in cluster.jobs().values(), "it is in the queue again")
    (run,) = runs_of(cluster.folder, "early")
    assert starts(run) == 0 and lines(cluster.table("early"))[0][1] == "waiting"
    late.unlink()
    cluster.let_start()
    until(lambda: run_status(run, None, print).state == "done", "the cell done")


def test_a_cancelled_job_saves_and_is_not_put_back(story: Story, cluster: Cluster) -> None:
    pace(cluster.folder, 0.3)
    assert cluster.sweep("seed=3", "group=cancelled", "--detach").code == 0
    (run,) = runs_of(cluster.folder, "cancelled")
    until(lambda: steps_done(run), "a cell that trains")
    cluster.run("scancel", *cluster.jobs())
    until(lambda: not cluster.jobs(), "the queue is empty")
    assert lines(cluster.table("cancelled"))[0][1] == "stopped" and starts(run) == 1


def test_what_slurm_refuses_is_told_in_one_line(cluster: Cluster) -> None:
    refused = cluster.sweep("seed=4", "group=refused", "hydra.launcher.partition=nosuch").refusal()
    assert "SLURM rejected the jobs: " in refused and "invalid partition specified: nosuch" in refused
    assert lines(cluster.table("refused"))[0][1] == "waiting"
