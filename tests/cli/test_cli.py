import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import get_class
from support.command import SCRIPT, TINY, Answer, files_of, here, posexp, run_of, world, write_texts

from posexp.cli.arguments import HYDRA_FLAGS, HYDRA_VALUES, INFO
from posexp.cli.completion import candidates
from posexp.cli.schemes import fitted
from posexp.config.commands import COMMANDS
from posexp.config.components import read_options
from posexp.config.sections import config_dir
from posexp.report import COLUMNS
from posexp.schemes import Scheme

LONG_FLAGS = sorted(flag for flag in HYDRA_FLAGS if flag.startswith("--"))
SCHEMES = sorted(path.stem for path in (config_dir() / "scheme").glob("*.yaml"))
FOO = '''
from posexp.schemes import Scheme


class Foo(Scheme):
    """Marks every other position."""

    def __init__(self, dims, factor: float):
        super().__init__(dims)
        self.factor = factor

    def embed(self, x_BTD, pos_BT):
        return x_BTD * (1 + self.factor * (pos_BT % 2)[..., None])
'''


@pytest.fixture
def finished(tmp_path_factory, tmp_path) -> Path:
    return world(tmp_path_factory, tmp_path)


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of somebody else's: a scheme and an experiment of their own in own/, and mine.py."""
    for name, text in {
        "mine.py": FOO,
        "own/scheme/foo.yaml": "# every other position\n_target_: mine.Foo\nfactor: 0.5\n",
        "own/experiment/x.yaml": "# @package _global_\ndefaults:\n  - override /scheme: rope\nseed: 7\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def composed(answer: Answer) -> tuple[str, str]:
    """(scheme class, seed) of what --cfg job shows."""
    assert answer.code == 0, answer.err
    values = dict(line.strip().split(": ", 1) for line in answer.out.splitlines() if ": " in line)
    return values["_target_"].rpartition(".")[2], values["seed"]


def test_posexp_alone_says_what_to_type(tmp_path):
    alone = posexp(cwd=tmp_path)
    assert alone.code == 2
    for command in COMMANDS:
        assert f"posexp {command}" in alone.out
    for word in ("--help", "-h", "help"):
        assert here(word, cwd=tmp_path) == Answer(0, alone.out, "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["generate"], "the commands are train, eval, report, compare, power, leaderboard, runs"),
        (["train", *TINY], "choose a scheme with +scheme=<name>; posexp schemes lists all"),
        (["train", "+scheme=rope", *TINY, "hydra/launcher=basic"], "hydra/launcher=basic only acts in a sweep: add -m"),
        (["train", "+scheme=rope", *TINY, "seed=0,1"], "seed=0,1 names several values: add -m"),
        (["train", "+scheme=rope", *TINY, "-m", "--cfg", "job"], "-m runs a sweep"),
        (["train", "+scheme=rope", *TINY, "--lenghts", "16"], "no flag --lenghts; did you mean --lengths?"),
        (["train", "+scheme=rope", *TINY, "--runs", "*"], "posexp train has no flag --runs"),
        (["eval", "--runs"], "--runs needs a value"),
        (["train", "+scheme=rope", *TINY, "--config-dir"], "--config-dir needs a value"),
        (["train", "+scheme=rope", *TINY, "--config-dir", "nowhere"], "nowhere' not found"),
        (["eval", "--lengths", "16"], "no finished run in results/default/*. Train one first: posexp train"),
        (["report"], "no measured run in results/default/*. First: posexp train"),
        (["runs"], "no runs in results/*. Train one: posexp train"),
    ],
)
def test_misuse_is_one_line_with_what_to_type_and_leaves_nothing_behind(tmp_path, words, says):
    assert says in here(*words, cwd=tmp_path).refusal()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("train rope", "'rope' is not key=value: use +scheme=rope"),
        ("train -m rope,alibi", "'rope,alibi' is not key=value: use +scheme=rope,alibi"),
        ("train small", "use model=small"),
        ("train rop", "did you mean +scheme=rope?"),
        ("train xyzzy", "posexp train --help lists all options, and posexp train --cfg job shows the composed config"),
        ("report small", "'small' is not key=value: use group=small or --runs 'small*'"),
        ("runs small", "use group=small"),
        ("report nll", "use measure=nll"),
        ("report html", "use html=true"),
        ("eval rope", "use group=rope or --runs 'rope*'"),
        ("eval yarn", "use +transform=yarn"),
        ("train +scheme=rope lr=0.001", "no key 'lr': use train.lr=0.001"),
        ("train +scheme=rope +lr=0.001", "no key 'lr': use train.lr=0.001"),
        ("train +scheme=rope model.lr=0.001", "no key 'model.lr': use train.lr=0.001"),
        ("train +scheme=rope base=500", "no key 'base': use scheme.base=500"),
        ("train +scheme=rope precision=float32", "use train.precision=float32 or eval.precision=float32"),
        ("train +scheme=rope train.lrr=1", "no key 'train.lrr', did you mean 'train.lr'?"),
        ("train +scheme=rope wandb=disabled", "wandb is a section, not a value: use wandb.mode=disabled"),
        ("train +scheme=rope trainer=fsdp", "use trainer.strategy=fsdp"),
        ("train +scheme=rope train=100", "train is a section, not a value: use train.length=… or train.tokens=… or"),
        ("eval eval=100", "eval is a section, not a value: use eval.lengths=…"),
        ("report --group small", "posexp report has no flag --group: use group=small"),
        ("train --scheme rope", "no flag --scheme: use +scheme=rope"),
        ("train +scheme=rope --lr=0.1", "no flag --lr: use train.lr=0.1"),
        ("eval --trust", "no flag --trust: use trust=true"),
        (
            "train +scheme=rope --dry-run",
            "no flag --dry-run; posexp train --help lists all options, and posexp train",
        ),
        (
            "train +scheme=rope hydra.run.dir=foo",
            "hydra.run.dir=foo has no effect: posexp chooses its folders by itself",
        ),
        ("train -m +scheme=rope hydra.sweep.dir=foo", "use results=… (folder of all groups) or group=…"),
        ("bench hydra.run.dir=foo", "use folder=… (folder of all benches)"),
        ("check hydra.output_subdir=foo", "posexp check writes no files"),
        ("report hydra/job_logging=default", "hydra/job_logging=default has no effect"),
    ],
)
def test_what_was_meant_is_said_in_one_line(tmp_path, line, says):
    assert says in here(*line.split(), cwd=tmp_path).refusal()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_traceback_is_shown_only_when_asked_for(tmp_path):
    words = ["train", "+scheme=rope", *TINY]
    assert "no file text" in posexp(*words, cwd=tmp_path).refusal()
    asked = posexp(*words, cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert asked.code == 1 and "Traceback" in asked.err and "no file text" in asked.err


def test_help_lists_choices_and_knobs_in_a_fresh_process_without_torch(tmp_path):
    answer = posexp("train", "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in answer.err.splitlines()}
    assert answer.code == 0 and "posexp.cli" in imported
    assert not {"torch", "datasets", "wandb", "matplotlib", "hydra"} & imported
    shown = " ".join(answer.out.split())
    for word in (
        f"+scheme {', '.join(SCHEMES)}",
        "train.lr peak learning rate (float, default 0.003)",
        "(int, default 5)",
    ):
        assert word in shown
    for word in (
        "eval.lengths",
        "(list of int or null, default null)",
        "(ddp | fsdp, default ddp)",
        "+experiment alibi",
    ):
        assert word in shown
    assert "+transform" in shown and max(map(len, answer.out.splitlines())) <= 88


@pytest.mark.slow
def test_help_shows_the_groups_of_the_command_alone_and_those_of_ones_own(own):
    assert "Named choices" not in here("compare", "--help", cwd=own).out
    shown = here("eval", "--help", cwd=own).out
    assert "+transform" in shown and "experiment" not in shown and "+scheme" not in shown
    assert " foo," in here("train", "--help", "--config-dir", "own", cwd=own).out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(tmp_path, command):
    answer = here(command, "--help", cwd=tmp_path)
    assert answer.code == 0 and f"posexp {command}" in answer.out.splitlines()[0]


@pytest.mark.slow
def test_cfg_and_info_show_what_would_run(tmp_path):
    answer = posexp("train", "+scheme=alibi", "--cfg", "job", "seed=3", cwd=tmp_path)
    assert composed(answer) == ("Alibi", "3")
    part = posexp("train", "+scheme=alibi", "--cfg", "job", "--package", "model", cwd=tmp_path)
    assert part.code == 0 and part.out.splitlines()[0] == "# @package model" and "d_model: 128" in part.out
    info = posexp("train", "--info", "defaults", "+scheme=alibi", cwd=tmp_path)
    assert info.code == 0 and "scheme/alibi" not in info.err and "alibi" in info.out


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    """Each ends as programs do that SIGPIPE ends, whether it notices while it prints or when all is printed."""
    for words in ("schemes", "report --help"):
        line = f"{{ sleep 0.1; exec {shlex.quote(str(SCRIPT))} {words}; }} 2>err | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, check=False)
        assert ((tmp_path / "err").read_text(), done.returncode) == ("", 128 + signal.SIGPIPE), words


@pytest.mark.slow
def test_a_job_whose_reader_leaves_ends_like_any_command(finished):
    line = f"{{ sleep 0.1; exec {shlex.quote(str(SCRIPT))} runs; }} 2>err | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=finished, check=False)
    assert ((finished / "err").read_text(), done.returncode) == ("", 128 + signal.SIGPIPE)


def test_flags_may_stand_anywhere(tmp_path):
    for words in (["seed=3", "--cfg", "job", "+scheme=rope"], ["--cfg=job", "seed=3", "+scheme=rope"]):
        assert composed(here("train", *words, cwd=tmp_path)) == ("Rope", "3")
    lengths = here("train", "+scheme=rope", "--lengths=512,2048", "--cfg", "job", "-p", "eval", cwd=tmp_path)
    assert "lengths:\n- 512\n- 2048\n" in lengths.out


@pytest.mark.slow
def test_an_experiment_may_name_the_scheme_and_the_line_may_name_another(own):
    of_experiment = ["train", "--config-dir", "own", "+experiment=x", "--cfg", "job"]
    assert composed(here(*of_experiment, cwd=own)) == ("Rope", "7")
    for words in (["scheme=alibi"], ["+scheme=alibi"], ["+scheme=alibi", "seed=7"]):
        assert composed(here(*of_experiment, *words, cwd=own)) == ("Alibi", "7")
        assert composed(here("train", *words, *of_experiment[1:], cwd=own)) == ("Alibi", "7")
    assert "model.d_model=31" in here(*of_experiment[:4], "model.d_model=31", cwd=own).refusal()


@pytest.mark.slow
def test_the_same_run_whatever_the_way_it_is_typed(finished):
    before = files_of(run_of(finished))
    for words in (["scheme=rope", *TINY], [*TINY, "--lengths=8,16,64", "+scheme=rope"]):
        answer = here("train", *words, "--lengths", "8,16,64", cwd=finished)
        assert answer.code == 0 and "already trained, 8 steps" in answer.err, answer.err
    sweep = posexp("train", *TINY, "+scheme=rope", "-m", "--lengths", "8,16,64", "seed=0", cwd=finished)
    assert sweep.code == 0 and "1 cells: 1 done, 0 to do" in sweep.err, sweep.err
    after = files_of(run_of(finished))
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed <= {"holder.json", "job.json"}
    assert len(list((finished / "results" / "default").glob("*/config.yaml"))) == 2


@pytest.mark.slow
def test_in_a_sweep_a_job_that_fails_ends_alone(finished):
    wild = [*TINY, "train.clip=1e9", "--lengths", "16", "group=wild"]
    answer = posexp("train", "-m", "+scheme=alibi", "train.lr=1e9,1e-3", *wild, cwd=finished)
    assert "no longer finite" in answer.refusal(code=1) and "posexp: job 0: alibi-s0-" in answer.err
    shown = here("runs", "--group", "wild", cwd=finished).out.splitlines()
    state = {line.split()[1]: line for line in shown if line.startswith("alibi-")}
    assert state.keys() >= {"failed", "done"} and state["done"].endswith("16")


@pytest.mark.slow
def test_a_scheme_of_ones_own_trains_and_evaluates(own):
    write_texts(own / "text")
    own_dir = ["--config-dir", "own"]
    answer = posexp("train", *own_dir, "+scheme=foo", *TINY, "--lengths", "16", "scheme.factor=0.25", cwd=own)
    assert answer.code == 0, answer.err
    run = run_of(own, "foo")
    assert "factor: 0.25" in (run / "config.yaml").read_text() and rows_of(run)[0]["status"] == "ok"
    measure = ["eval", "--lengths", "64", "wandb.mode=disabled"]
    refused = here(*measure, cwd=own).refusal()
    assert "mine.Foo" in refused and "trust=true" in refused and run.name in refused
    assert here(*measure, "trust=true", cwd=own).code == 0
    assert {row["length"] for row in rows_of(run)} == {2, 16, 64}
    assert "every other position" in here("schemes", *own_dir, cwd=own).out


@pytest.mark.slow
def test_eval_measures_every_finished_run_once(finished):
    unfinished = run_of(finished).with_name("alibi-s0-00000000")
    unfinished.mkdir()
    (unfinished / "config.yaml").write_bytes((run_of(finished) / "config.yaml").read_bytes())
    measure = ["eval", "--lengths", "16,32", "wandb.mode=disabled"]
    first = posexp(*measure, cwd=finished)
    assert first.code == 0 and "alibi-s0-00000000: not finished (waiting), skipped" in first.err, first.err
    rows = {label: (run_of(finished, label) / "rows.jsonl").read_bytes() for label in ("rope", "learned")}
    again = here(*measure, cwd=finished)
    assert again.code == 0 and again.err.count("all 16, 32 measured already") == 2
    assert rows == {label: (run_of(finished, label) / "rows.jsonl").read_bytes() for label in rows}
    status = {row["length"]: row["status"] for row in rows_of(run_of(finished, "learned"))}
    assert status == {2: "ok", 8: "ok", 16: "ok", 32: "undefined", 64: "undefined"}
    some = here("eval", "--lengths", "24", "--runs", "learned*", "wandb.mode=disabled", cwd=finished)
    assert some.code == 0 and 24 in {row["length"] for row in rows_of(run_of(finished, "learned"))}
    assert 24 not in {row["length"] for row in rows_of(run_of(finished))}


@pytest.mark.slow
def test_eval_takes_knobs_and_repeats_what_they_change(finished):
    run = run_of(finished)
    before = len(rows_of(run))
    words = ["eval", "--lengths", "16", "--runs", "rope*", "wandb.mode=disabled", "eval.protocols=[sliding]"]
    for stride in (4, 8, 4):
        assert here(*words, f"eval.stride={stride}", cwd=finished).code == 0
    assert [(row["protocol"], row["stride"]) for row in rows_of(run)[before:]] == [("sliding", 4), ("sliding", 8)]


@pytest.mark.slow
def test_eval_goes_on_as_the_run_was_told(finished):
    run = run_of(finished)
    before = rows_of(run)
    again = here("eval", "--runs", "rope*", cwd=finished)
    assert again.code == 0 and "all 8, 16, 64 measured already" in again.err, "its own lengths, targets and protocols"
    assert rows_of(run) == before
    answer = here("eval", "--lengths", "32", "--runs", "rope*", "eval.controls=false", cwd=finished)
    assert answer.code == 0, answer.err
    new = rows_of(run)[len(before) :]
    assert {(row["protocol"], row["length"], row["control"]) for row in new} == {
        ("same_targets", 32, ""),
        ("nonoverlapping", 32, ""),
    }
    hashes = {row["targets_hash"] for row in rows_of(run) if row["protocol"] == "same_targets"}
    assert len(hashes) == 1, "a length more scores the targets of the others"
    shown = here("eval", "--cfg", "job", cwd=finished).out
    assert "lengths: ???" in shown, "what is not chosen is the run's own"
    assert "eval.targets=0 must be at least 1" in here("eval", "eval.targets=0", cwd=finished).refusal()


def test_report_writes_rows_table_and_curves(finished):
    answer = posexp("report", cwd=finished)
    assert answer.code == 0, answer.err
    folder = finished / "results" / "default" / "report"
    written = {"rows.csv", "verdicts.csv", "table.md", "table.tex"}
    written |= {f"{name}.{kind}" for name in ("curves", "others") for kind in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == written
    with (folder / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    assert len([row for row in rows if not row["control"]]) == 16 and {row["status"] for row in rows} == {
        "ok",
        "undefined",
    }
    assert "undefined" in (folder / "table.md").read_text() and "learned" in answer.out
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG" and "<svg" in (folder / "curves.svg").read_text()


def test_runs_shows_how_far_each_run_is(finished):
    interrupted = run_of(finished, "learned")
    lines = (interrupted / "metrics.jsonl").read_text().splitlines(keepends=True)
    (interrupted / "metrics.jsonl").write_text("".join(line for line in lines if '"done"' not in line))
    answer = here("runs", cwd=finished)
    learned, rope = (line for line in answer.out.splitlines() if "-s0-" in line and "log:" not in line)
    assert "interrupted" in learned and "done" in rope and "8/8" in rope and "8, 16, 64" in rope


def test_schemes_is_a_line_for_each_that_fits_the_width(own):
    answer = here("schemes", "--config-dir", "own", cwd=own)
    groups = ("window", "temperature", "mixer", "transform")
    kinds = [path.stem for kind in groups for path in sorted((config_dir() / kind).glob("*.yaml"))]
    names = [line.split()[0] for line in answer.out.splitlines() if line.startswith("  ")]
    assert names[: len(SCHEMES) + 1] == sorted([*SCHEMES, "foo"])
    assert names[len(SCHEMES) + 1 :] == [*kinds, "base", "base_h128", "bench", "small", "small_h128", "tiny"]
    assert "rotated queries and keys (RoPE) · Su et al. 2021 · arXiv 2104.09864" in answer.out
    about = "rotated queries and keys (RoPE) · Su et al. 2021 · arXiv 2104.09864"
    assert [fitted(about, width) for width in (70, 50, 40, 30)] == [
        about,
        "rotated queries and keys (RoPE) · Su et al. 2021",
        "rotated queries and keys (RoPE)",
        "rotated queries and keys …",
    ]


@pytest.mark.slow
def test_schemes_tells_all_of_what_is_named(tmp_path):
    answer = posexp("schemes", "rope", "dape", "offset", "yarn", "small", cwd=tmp_path)
    assert answer.code == 0 and not list(tmp_path.iterdir())
    heads = [line.split() for line in answer.out.splitlines() if line.split()[:1] and " ─" not in line]
    assert [words for words in heads if words[0] in ("scheme", "transform", "model")] == [
        *(["scheme", name] for name in ("rope", "dape", "offset")),
        *(["transform", "offset"], ["transform", "yarn"], ["model", "small"]),
    ]
    assert "2104.09864" in answer.out and "base=10000.0" in answer.out and "bias" in answer.out
    assert "relative" in answer.out and "beta_fast=32.0" in answer.out and "inner=Sinusoidal" in answer.out
    refused = here("schemes", "rop", cwd=tmp_path).refusal()
    assert "nothing is called 'rop', did you mean 'rope'?; posexp schemes lists all" in refused


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("posexp ", " ".join(COMMANDS)),
        ("posexp tr", "train"),
        ("posexp train +scheme=", " ".join(f"+scheme={name}" for name in SCHEMES)),
        ("posexp train scheme=ali", "scheme=alibi"),
        ("posexp train +scheme=rope window=sl", "window=sliding"),
        ("posexp eval +transform=yar", "+transform=yarn"),
        ("posexp check ro", "rope"),
        ("posexp train -m model.n_", "model.n_layer= model.n_head= model.n_kv_head="),
        ("posexp train +scheme=rope scheme.b", "scheme.base="),
        ("posexp train --le", "--lengths"),
        ("posexp report --", " ".join(sorted(["--all", "--html", "--runs", *LONG_FLAGS]))),
        ("posexp eval tr", "trust= train_length="),
        ("posexp eval +tr", "+transform="),
        ("posexp eval eval.protocols=[same_targets,sliding_", "eval.protocols=[same_targets,sliding_late"),
        ("posexp power rope protocol=trunc", "protocol=truncated"),
        ("posexp train -m +scheme=rope,al", "+scheme=rope,alibi +scheme=rope,alternate"),
        ("posexp train device=c", "device=cpu device=cuda"),
        ("posexp report --html ht", "html="),
        ("posexp train +", "+model= +data= +scheme= +window= +temperature= +mixer= +transform= +experiment="),
        ("posexp train --lengths 16,32 +scheme=rop", "+scheme=rope"),
        ("posexp train --config-dir own +scheme=foo", "+scheme=foo"),
        ("posexp train --config-dir ", ""),
        ("posexp eval --runs 'r*' eval.strid", "eval.stride="),
        ("posexp train +scheme=rope -m hydra/launcher=ba", "hydra/launcher=basic"),
    ],
)
def test_tab_offers_what_fits(own, monkeypatch, line, offered):
    monkeypatch.setenv("COMP_LINE", line)
    answer = here("-sc", "query=bash", cwd=own)
    assert answer.code == 0 and answer.err == "" and answer.out.split() == offered.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("posexp inspect al", "alibi-s0-0123abcd"),
        ("posexp eval --runs ", "alibi-s0-0123abcd rope-s1-0123abcd"),
        ("posexp eval group=g runs=", "runs=xpos-s0-0123abcd"),
        ("posexp compare rope a", "alibi"),
        ("posexp compare --config-dir x group=g ", "xpos"),
        ("posexp report group=", "group=default group=g"),
        ("posexp runs --group d", "default"),
    ],
)
def test_tab_knows_the_runs_groups_and_curves(tmp_path, line, offered):
    for name in ("default/alibi-s0-0123abcd", "default/rope-s1-0123abcd", "g/xpos-s0-0123abcd", "default/report"):
        (tmp_path / "results" / name).mkdir(parents=True)
    for folder in (tmp_path / "results").glob("*/*-s*"):
        (folder / "config.yaml").touch()
    command = [sys.executable, "-X", "importtime", "-m", "posexp", "-sc", "query=bash"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "COMP_LINE": line}, capture_output=True, text=True, check=True
    )
    words = [word for word in done.stdout.split() if not word.endswith(("=", "."))]
    assert words == offered.split()
    imported = {each.rpartition("|")[2].strip() for each in done.stderr.splitlines()}
    assert "posexp.cli.completion" in imported and not {"hydra", "omegaconf", "torch", "numpy"} & imported


def test_tab_and_flags_know_what_other_modules_define():
    from hydra._internal.utils import get_args_parser

    from posexp.evaluation.plan import PROTOCOLS

    assert candidates("posexp compare protocol=") == [f"protocol={name}" for name in PROTOCOLS]
    options = {name: action for action in get_args_parser()._actions for name in action.option_strings}
    assert HYDRA_FLAGS | {"--shell-completion", "-sc", "--shell_completion"} >= options.keys() >= HYDRA_FLAGS
    valued = {name for name, action in options.items() if action.nargs is None}
    assert valued & HYDRA_FLAGS == HYDRA_VALUES
    assert set(options["--info"].choices) == INFO["--info"]


def test_schemes_are_listed_without_importing_one(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "posexp", "schemes"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = {each.rpartition("|")[2].strip() for each in done.stderr.splitlines()}
    assert "hydra" in imported and not {"torch", "datasets", "matplotlib", "wandb", "posexp.schemes"} & imported
    for path in (config_dir() / "scheme").glob("*.yaml"):
        target = read_options(path)["_target_"]
        assert issubclass(get_class(target), Scheme) and f"  {path.stem} " in done.stdout


def test_tab_works_in_a_real_bash(tmp_path):
    line = "posexp train +scheme=rop"
    script = f"""
    eval "$(posexp -sc install=bash)" && complete -p posexp
    COMP_WORDS=({line}) COMP_CWORD=2 COMP_LINE='{line}' COMP_POINT={len(line)}
    hydra_bash_completion && echo "reply ${{COMPREPLY[*]}}"
    """
    (tmp_path / "tab.sh").write_text(script)
    (tmp_path / "posexp").symlink_to(SCRIPT)  # Hydra's hook cannot call a command whose path has a space
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "tab.sh"], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.stderr == "" and done.returncode == 0
    assert "-F hydra_bash_completion posexp" in done.stdout and done.stdout.splitlines()[-1] == "reply +scheme=rope"


def test_a_slurm_launcher_without_slurm_says_so():
    from posexp.config.explain import explain_error

    assert "no SLURM on this machine" in explain_error(RuntimeError('Could not detect "srun", are you sure?'), "train")
