"""A sweep is checked before it starts, does what is missing, and can be looked on. With SLURM: test_slurm.py."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command import SCRIPT, TINY, here, posexp, run_of, world
from support.sweeps import pace, runs_of, same_uninterrupted, slow_world, starts, steps_done, until, weights

from posexp.cli.runs import lines_of
from posexp.config.compose import threads
from posexp.jobs import slurm
from posexp.runs.run import Run
from posexp.runs.status import RunStatus, run_status
from posexp.storage import jsonl

pytestmark = pytest.mark.slow

SHORT = [*TINY, "train.tokens=1000", "--lengths", "16"]


@pytest.fixture
def finished(tmp_path_factory, tmp_path) -> Path:
    return world(tmp_path_factory, tmp_path)


def test_a_cell_that_cannot_be_run_is_named_before_any_is_started(finished):
    words = ["train", "-m", "+scheme=alibi,rope", "model.d_model=30,32", "group=new", *SHORT]
    refused = here(*[word for word in words if word != "model.d_model=32"], cwd=finished).refusal()
    assert "cell scheme=rope model.d_model=30: rotary positions" in refused and "no cell was started" in refused
    assert "more" not in refused and not (finished / "results" / "new").exists()
    lengths = here("train", "-m", "+scheme=alibi,rope", "group=new", *TINY, "--lengths", "9999", cwd=finished).refusal()
    assert "cell scheme=alibi: " in lengths and "1 more cannot be run either" in lengths
    assert not (finished / "results" / "new").exists()


def test_a_sweep_does_what_is_missing_and_nothing_twice(finished):
    sweep = ["train", "-m", "+scheme=rope,learned", *TINY, "--lengths", "8,16,64"]
    assert "2 cells: 2 done, 0 to do" in here(*sweep, cwd=finished).err
    shutil.rmtree(run_of(finished, "rope"))
    again = here(*sweep, "seed=0,1", cwd=finished)
    assert again.code == 0 and "4 cells: 1 done, 3 to do" in again.err and "already trained" not in again.err
    same = here("train", "-m", "+scheme=rope", "seed=5,5", *SHORT, cwd=finished)
    assert same.code == 0 and "2 cells: 1 named twice, 1 to do" in same.err
    longer = here("train", "-m", "+scheme=rope", "seed=5", *SHORT[:-1], "16,32", cwd=finished)
    assert "1 cells: 1 to do" in longer.err and "same_targets 32" in longer.err and "already trained" in longer.err


def test_a_cell_that_another_process_works_on_is_left_to_it(finished):
    run = Run(run_of(finished, "rope"))
    with run.lock():
        answer = here("train", "-m", "+scheme=rope,learned", *TINY, "--lengths", "8,16,64", cwd=finished)
    assert answer.code == 0 and "2 cells: 1 being worked on, 1 done, 0 to do" in answer.err


def test_a_cell_killed_while_it_was_evaluated_is_not_done(finished):
    run = Run(run_of(finished, "rope"))
    rows = jsonl.read_lines(run.metrics, print)
    assert [row["evaluation"] for row in rows if "evaluation" in row] == ["running", "done"]
    jsonl.rewrite(run.metrics, rows[:-1])
    assert "interrupted" in here("runs", cwd=finished).out
    answer = here("train", "-m", "+scheme=rope", *TINY, "--lengths", "8,16,64", cwd=finished)
    assert "1 cells: 1 to do" in answer.err and run_status(run, None, print).state == "done"


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_of_one_machine_put_cells_into_the_same_folders(finished, launcher):
    pytest.importorskip({"joblib": "joblib"}.get(launcher, "submitit"))
    kept = run_of(finished, "rope")
    shutil.move(kept, finished / "kept")
    sweep = ["train", "-m", "+scheme=rope,learned", *TINY, "--lengths", "8,16,64", f"hydra/launcher={launcher}"]
    answer = posexp(*sweep, cwd=finished)
    assert answer.code == 0 and "2 cells: 1 done, 1 to do" in answer.err, answer.err
    assert weights(Run(kept)) == weights(Run(finished / "kept")) and run_status(Run(kept), None, print).state == "done"
    about = json.loads((kept / "job.json").read_text())
    assert about["pid"] != os.getpid() and (launcher == "joblib" or "ppl" in Path(about["log"]).read_text())


def test_processes_of_joblib_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert [threads(n) for n in (-1, -2, 1, 4, 32)] == [1, 1, 16, 4, 1]


def test_launchers_have_defaults_of_ours_and_values_are_checked(tmp_path):
    for launcher, line in {
        "submitit_slurm": "max_num_timeout: 100",
        "submitit_local": "timeout_min: 10080",
        "joblib": "pre_dispatch: all",
    }.items():
        pytest.importorskip("joblib" if launcher == "joblib" else "submitit")
        show = ["train", "+scheme=rope", f"+hydra/launcher={launcher}", "--cfg", "hydra", "-p", "hydra.launcher"]
        shown = posexp(*[word.lstrip("+") if "launcher" in word else word for word in show], cwd=tmp_path)
        assert shown.code == 2 and "only acts in a sweep" in shown.err
        bad = here("train", "-m", "+scheme=rope", *TINY, f"hydra/launcher={launcher}", "hydra.launcher.n_jobz=1",
                   cwd=tmp_path)  # fmt: skip
        assert "n_jobz" in bad.refusal() or "no SLURM" in bad.refusal()
        text = (Path(__file__).resolve().parents[2] / "configs" / "hydra" / "launcher" / f"{launcher}.yaml").read_text()
        assert line in text


@pytest.mark.parametrize(("launcher", "extra"), [("submitit_slurm", "slurm"), ("joblib", "joblib")])
def test_a_launcher_whose_package_is_missing_says_how_to_get_it(tmp_path, launcher, extra):
    without = (
        "import sys; sys.modules |= dict.fromkeys(['hydra_plugins.hydra_submitit_launcher',"
        "'hydra_plugins.hydra_joblib_launcher']); from posexp.cli.main import main; sys.exit(main())"
    )
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    words = ["train", "-m", "+scheme=rope", *TINY, f"hydra/launcher={launcher}"]
    done = subprocess.run(
        [sys.executable, "-c", without, *words],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    line = f"posexp: error: hydra/launcher={launcher} comes with an extra: pip install 'posexp[{extra}]'"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, line)
    assert [path.name for path in tmp_path.iterdir()] == ["sbatch"]


def test_slurm_where_there_is_none_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    words = ["train", "-m", "+scheme=rope", *TINY, "hydra/launcher=submitit_slurm"]
    assert "no SLURM on this machine" in here(*words, cwd=tmp_path).refusal() and not list(tmp_path.iterdir())


def test_a_detached_sweep_outlives_its_command_and_can_be_looked_on(tmp_path):
    words = slow_world(tmp_path)
    pace(tmp_path, 0.2)  # the first cell still trains when posexp runs answers, however busy the machine is
    answer = posexp("train", "-m", *words, "seed=0,1", "group=far", "--detach", cwd=tmp_path)
    assert answer.code == 0 and "2 cells: 2 to do" in answer.err, answer.err
    assert "posexp runs --group far" in answer.err and "results/far/sweep-" in answer.err
    first, second = runs_of(tmp_path, "far")
    until(lambda: steps_done(first), "a training row of the first cell")
    table = here("runs", "--group", "far", cwd=tmp_path).out
    assert "2 runs, 1 running, 1 waiting" in table and "0/100" in table, table
    pace(tmp_path, 0)
    until(lambda: run_status(second, None, print).state == "done", "the second cell")
    (log,) = (tmp_path / "results" / "far").glob("sweep-*.log")
    assert "same_targets 16" in log.read_text()
    assert json.loads((second.folder / "job.json").read_text())["log"] == str(log)
    nothing = here("train", "-m", *words, "seed=0,1", "group=far", "--detach", cwd=tmp_path)
    assert nothing.code == 0 and "2 cells: 2 done, 0 to do" in nothing.err and "process" not in nothing.err
    assert "--detach only acts in a sweep: add -m" in here("train", *words, "--detach", cwd=tmp_path).refusal()


def test_a_local_job_that_is_told_its_time_is_over_goes_on_by_itself_bit_for_bit(tmp_path):
    pytest.importorskip("submitit")
    words = slow_world(tmp_path)
    pace(tmp_path, 0.05)
    answer = posexp("train", "-m", *words, "hydra/launcher=submitit_local", "--detach", cwd=tmp_path)
    assert answer.code == 0, answer.err
    (run,) = runs_of(tmp_path, "default")
    until(lambda: steps_done(run), "a training row")
    os.kill(json.loads((run.folder / "job.json").read_text())["pid"], signal.SIGUSR2)
    until(lambda: run_status(run, None, print).state == "done", "the cell")
    assert starts(run) == 2 and weights(run) == weights(same_uninterrupted(run, words, tmp_path))


def test_a_job_on_a_machine_that_lacks_something_says_so(finished, monkeypatch):
    """Here the text, of which the machine that submits had a copy."""
    monkeypatch.setenv("POSEXP_LOG", str(finished / "job.log"))
    (finished / "job.log").touch()
    run = Run(run_of(finished, "rope"))
    (run.folder / "metrics.jsonl").unlink()
    shutil.move(finished / "text", finished / "elsewhere")
    assert here("train", "+scheme=rope", *TINY, cwd=finished).code == 2
    now = run_status(run, None, print)
    assert now.state == "failed" and "no file text" in now.why and now.log == str(finished / "job.log")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2])
def test_a_step_that_does_not_end_is_not_waited_for(tmp_path, signum):
    """As one that is being compiled, which takes minutes."""
    words = slow_world(tmp_path)
    pace(tmp_path, 1000)
    impatient = "import sys; from posexp.cli import main; from posexp.jobs import signals; "
    impatient += "signals.PATIENCE = 0.5; sys.exit(main.main())"
    process = subprocess.Popen(
        [sys.executable, "-c", impatient, "train", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: any(starts(run) for run in runs_of(tmp_path, "default")), "the first step")
    process.send_signal(signum)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + signum and "in a step that did not end" in err.splitlines()[-1], err
    assert "Traceback" not in err and run_status(runs_of(tmp_path, "default")[0], None, print).state == "interrupted"


@pytest.mark.parametrize("delay", [0.3, 0.9, 1.5, 2.5])
def test_sigterm_while_starting_ends_in_one_line(tmp_path, delay):
    words = slow_world(tmp_path)
    process = subprocess.Popen([SCRIPT, "train", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.terminate()
    err = process.communicate(timeout=60)[1]
    if process.returncode != -signal.SIGTERM:  # before posexp was imported at all
        assert process.returncode in (143, 0) and "Traceback" not in err, err
    assert not list(tmp_path.rglob(".*.[0-9]*")), "files that were being written"


DROPS = """
import os, signal, sys, time
from posexp.cli import main

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

def work(*words):
    Finalised()
    time.sleep(30)

main.run_hydra = work
sys.argv = ["posexp", "runs"]
sys.exit(main.main())
"""


def test_a_signal_that_arrives_while_an_object_is_finalised_stops_too():
    """Python drops what is raised there: the command went on, and took no further SIGTERM."""
    ended = subprocess.run([sys.executable, "-c", DROPS], capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stderr) == (143, "posexp: stopped by SIGTERM; repeat the command to go on\n")


def test_runs_says_what_became_of_every_cell_and_where_to_read_on(finished):
    rope, learned = Run(run_of(finished, "rope")), Run(run_of(finished, "learned"))
    jsonl.append(rope.metrics, {"step": 8, "status": "failed", "reason": "the disk was full"})
    (learned.folder / "metrics.jsonl").unlink()
    out = here("runs", cwd=finished).out
    assert (
        "1 failed" in out and "    the disk was full\n" in out and f"log: results/default/{rope.name}/train.log" in out
    )
    assert "1 waiting" in out and "0/8" in out
    with rope.lock():
        (rope.folder / "job.json").write_text(json.dumps({"host": "node7", "since": time.time(), "job": "12_3"}))
        jsonl.append(rope.metrics, {"step": 4, "status": "running", "time": time.time() + 1})
        line = next(line for line in here("runs", cwd=finished).out.splitlines() if line.startswith(rope.name))
        assert line.split()[1] == "running" and "12_3" in line and "node7" in line


def test_a_failure_is_told_with_its_reason(finished):
    run = Run(run_of(finished, "rope"))
    jsonl.rewrite(run.metrics, [])
    shutil.rmtree(run.folder / "checkpoint")
    (run.folder / "checkpoint").write_text("no folder")
    answer = here("train", "-m", "+scheme=rope", *TINY, cwd=finished)
    assert answer.code == 1
    now = run_status(run, None, print)
    assert now.state == "failed" and "checkpoint" in now.why


def test_the_table_fits_a_narrow_terminal():
    cells = [
        RunStatus(Run(Path("r/g/rope-s0-12345678")), "running", 10, 2000, 3.25, 51234, 75.0, "node7", "12_3", 1e9),
        RunStatus(
            Run(Path("r/g/alibi-s0-12345678")), "failed", 10, 2000, why="a reason of words " * 8, log="r/g/x/train.log"
        ),
    ]
    wide, narrow = lines_of(cells, None), lines_of(cells, 60)
    assert "node7" in wide[1] and "12_3" in wide[1] and "1:15" in wide[1] and len(wide) == 5
    assert (
        max(map(len, narrow)) <= 60 and "running" in narrow[1] and "10/2000" in narrow[1] and "node7" not in narrow[1]
    )
    assert " ".join(" ".join(narrow[3:]).split()).startswith("a reason of words a reason")


def test_a_job_is_found_whatever_other_jobs_comments_hold(finished, monkeypatch, tmp_path_factory):
    """A comment may have lines, separators, and bytes that are no UTF-8; a word of the user's own is before ours."""
    bin_ = tmp_path_factory.mktemp("bin")
    record, field = slurm.RECORD, slurm.FIELD
    others = [
        "7{f}N/A{f}RUNNING{f}None{f}vm{f}line one\nline two|\\377",
        "8{f}N/A{f}RUNNING{f}None{f}vm{f}",
        "",
        "9{f}1",
    ]
    ours = "12_3{f}3{f}PENDING{f}Resources{f}{f}a\nb posexp-1"
    printed = "\n".join(record + line.format(f=field) for line in [*others, ours])
    script = f"#!/bin/sh\n[ -z \"$SQUEUE_STATES\" ] && printf '{printed}\n'\n"
    (bin_ / "squeue").write_text(script)
    (bin_ / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    run = Run(run_of(finished))
    slurm.submit(run.folder, "posexp-1", 3)
    said: list[str] = []
    assert slurm.job_of(run.folder, slurm.queue([run.folder], said.append)) == slurm.Job(
        "12_3", "PENDING", "Resources", ""
    )
    assert said == [], said


def test_a_squeue_that_hangs_is_not_waited_for(finished, monkeypatch, tmp_path_factory):
    bin_ = tmp_path_factory.mktemp("bin")
    (bin_ / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (bin_ / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("posexp.jobs.slurm.PATIENCE", 0.3)
    began = time.monotonic()
    assert here("runs", cwd=finished).err == "", "nothing was ever in SLURM"
    (run_of(finished) / "submission.json").write_text(json.dumps({"comment": "posexp-0", "place": 0}))
    answer = here("runs", cwd=finished)
    assert answer.code == 0 and "no answer within 0.3 seconds" in answer.err and "2 done" in answer.out
    assert time.monotonic() - began < 30


SLURM = {
    "srun": "exit 0",
    "sbatch": "echo Submitted batch job 12",
    "sacct": "echo 'sacct: error: Slurm accounting storage is disabled' >&2; exit 1",
}


@pytest.mark.parametrize(
    ("squeue", "limit", "line"),
    [
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", "SILENCE", "has not answered"),
        ("exit 0", "REQUEUE", "a job ended without a result"),
    ],
    ids=["gone", "without accounting"],
)
def test_a_sweep_whose_slurm_or_job_is_gone_ends_in_a_line(tmp_path, monkeypatch, squeue, limit, line):
    pytest.importorskip("submitit")
    from submitit.slurm.slurm import SlurmJob

    from posexp.sweeps import watch

    words = slow_world(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, script in {**SLURM, "squeue": squeue}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(watch, limit, 3.0)
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 1)
    monkeypatch.setattr(SlurmJob, "watcher", SlurmJob.watcher)  # put back afterwards
    began = time.monotonic()
    refused = here("train", "-m", *words, "group=far", "hydra/launcher=submitit_slurm", cwd=tmp_path).refusal(code=1)
    assert line in refused and "posexp runs" in refused and "the same command" in refused, refused
    assert 3 < time.monotonic() - began < 60
