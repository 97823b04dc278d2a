"""A run folder, a token store, a checkpoint may be somebody else's: they are data. Nothing in them runs, nothing in
them names a place outside, and none of them holds up whoever reads it."""

import ast
import csv
import io
import json
import os
import pickle
import resource
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from plotly.offline import get_plotlyjs
from support import hostile
from support.command import Answer, here, posexp, publish
from support.rows import row_of

from posexp.config import stored_yaml
from posexp.config.commands import TrainCommand
from posexp.config.components import is_own, targets
from posexp.config.fields import check_name
from posexp.config.sections import DataConfig, Source
from posexp.data.store import DamageError, Store
from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.evaluation import losses
from posexp.hf.source import code_from_outside, name_of
from posexp.output.console import say
from posexp.runs import checkpoint
from posexp.runs.run import Run
from posexp.storage import atomic, jsonl, untrusted
from posexp.storage.names import LONGEST_NAME, is_name

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = [
    *("model.d_model=16", "model.n_layer=1", "model.n_head=2", "data=files", "data.paths=text", "data.cache=cache"),
    *("data.vocab_size=260", "train.length=8", "train.tokens=512", "train.batch_tokens=64", "wandb.mode=disabled"),
    *("eval.protocols=[same_targets]", "eval.lengths=[4,8,16]", "eval.targets=32"),
]
READERS = [  # commands that read run folders, and train, which may find one in its place
    ["runs"],
    ["report", "--html"],
    ["compare", "rope", "alibi"],
    ["eval", "--lengths", "4,8,16,24", "wandb.mode=disabled"],
    ["train", "+scheme=rope", *TINY],
]
DRAWERS = [["inspect", "runs=*"], ["export", "runs=*"]]  # and those that write more into them


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    return hostile.world(tmp_path_factory.mktemp("made"), "+scheme=rope,alibi", "seed=0,1", *TINY)


@pytest.fixture
def group(made, tmp_path) -> Path:
    """A folder of its own with text/, cache/ and four runs."""
    return Path(shutil.copytree(made, tmp_path / "own"))


@pytest.fixture
def alone(group) -> Path:
    """The same with one run."""
    for run in runs_of(group):
        if run != run_of(group):
            shutil.rmtree(run)
    return group


def run_of(folder: Path) -> Path:
    (run,) = folder.glob("results/default/rope-s0-*")
    return run


def runs_of(folder: Path) -> list[Path]:
    return [path.parent for path in sorted(folder.glob("results/default/*/config.yaml"))]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def all_commands(folder: Path, commands: list[list[str]] = READERS) -> list[Answer]:
    answers = [here(*command, cwd=folder) for command in commands]
    for command, answer in zip(commands, answers, strict=True):
        assert answer.code in (0, 1, 2), (command, answer)
        assert "Traceback" not in answer.err and "unexpected" not in answer.err, (command, answer.err)
        for line in (answer.out + answer.err).split("\n"):
            assert line.isprintable(), (command, line)
    return answers


# ---- the source


MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "code", "codeop"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"),
    *(
        "yaml.full_load",
        "yaml.load_all",
        "torch.hub.load",
        "instantiate",
        "hydra.utils.instantiate",
        "hydra.utils.call",
    ),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "np.loadtxt", "np.fromregex", "pd.read_pickle"),
}
NEEDS = {"np.load": ("allow_pickle", False), "np.savez_compressed": ("allow_pickle", False)}
NEEDS |= {"np.save": ("allow_pickle", False), "torch.load": ("weights_only", True)}
# who may read JSON and YAML without bounds: what posexp itself, or the user, has written
PLAIN = {
    "json.loads": {
        "check/authors/__init__.py",
        "data/tokenizer.py",
        "data/files.py",
        "hf/source.py",
        "storage/untrusted.py",
    },
    "OmegaConf.load": {"config/components.py", "config/hints.py"},
    "import_module": {"cli/tasks.py", "hf/plain_components.py"},  # of a table in that file, of an export's own files
    "importlib.import_module": set(),
}


def offences(source: str, name: str) -> Iterator[str]:
    """Calls and imports that could run data, with their lines."""
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"{node.lineno}: import {module}" for module in modules if module.partition(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: getattr(word.value, "value", ...) for word in node.keywords}
        if called in CALLS or (called in PLAIN and name not in PLAIN[called]):
            yield f"{node.lineno}: {called}"
        if called in NEEDS and given.get(NEEDS[called][0], ...) is not NEEDS[called][1]:
            yield f"{node.lineno}: {called} without {NEEDS[called][0]}={NEEDS[called][1]}"
        if given.get("shell", False) is not False:
            yield f"{node.lineno}: {called} with a shell"
        if called.startswith("subprocess.") and node.args and isinstance(node.args[0], (ast.JoinedStr, ast.Constant)):
            yield f"{node.lineno}: {called} of one string"


def sources() -> list[Path]:
    scripts = [path for path in (REPOSITORY / "scripts").rglob("*.py")]
    return [*(REPOSITORY / "posexp").rglob("*.py"), *scripts]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_no_source_file_runs_what_it_reads(path):
    inside = path.is_relative_to(REPOSITORY / "posexp")  # a script reads what its user has made
    name = path.relative_to(REPOSITORY / "posexp").as_posix() if inside else "hf/source.py"
    assert list(offences(path.read_text(), name)) == []


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import os\nos.system(x)", "eval(text)", "exec(text)"),
        *("np.load(path)", "np.load(path, allow_pickle=True)", "torch.load(path)", "torch.load(p, weights_only=False)"),
        *("yaml.load(text, Loader=yaml.Loader)", "subprocess.run(f'cp {a} {b}')", "subprocess.run(a, shell=True)"),
        *("instantiate(config)", "json.loads(text)", "OmegaConf.load(path)", "importlib.import_module(name)"),
    ],
)
def test_the_check_of_the_source_sees_each_way(source):
    assert list(offences(source, "some.py"))


# ---- code in files


class Boom:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


def test_the_pickle_of_these_tests_would_run(tmp_path):
    pickle.loads(pickle.dumps(Boom(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def pickled_array(mark: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Boom(mark)] * 32, dtype=object), allow_pickle=True)
    return out.getvalue()


@pytest.mark.slow
def test_a_pickle_in_a_run_folder_or_store_is_never_loaded(group, tmp_path):
    mark = tmp_path / "ran"
    for path in group.glob("results/default/*/losses/*.npz"):
        with zipfile.ZipFile(path, "w") as packed:
            for name in ("nll", "target", "context", "document", "hit"):
                packed.writestr(f"{name}.npy", pickled_array(mark))
    for run in runs_of(group):
        for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "tokenizer.pkl", "rows.npy"):
            for folder in (run, run / "checkpoint", run / "losses"):
                (folder / name).write_bytes(pickle.dumps(Boom(mark)))
    for answer in all_commands(group):
        assert not mark.exists(), answer
    for run in runs_of(group):
        for path in (run / "checkpoint").glob("*.safetensors"):
            path.write_bytes(pickle.dumps(Boom(mark)))
            digest = atomic.sha256(path)
            edit(path.with_suffix(".json"), path.with_suffix(".json").read_text().split('"sha256": ')[1][1:65], digest)
    (store,) = group.glob("cache/tokens/*/store.json")
    for name in ("train.documents.npy", "valid.documents.npy", "test.documents.npy"):
        (store.parent / name).write_bytes(pickled_array(mark))
    hostile.sign_store(store.parent)
    with pytest.raises(DamageError, match="split 'train' is invalid"):
        Store(store.parent)
    for answer in all_commands(group):
        assert not mark.exists(), answer


CODE = [
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:posexp.errors.Stopped [a, 1]",
    "!!python/name:os.system",
    "!!python/module:evil",
    "!!python/object/apply:pathlib.Path [/etc]",
    "${{oc.env:POSEXP_SECRET}}",
    "${{oc.decode:'1'}}",
    "a${{oc.env:POSEXP_SECRET}}b",
    "${{posexp_label:}}",
    "${{seed}}",
    "&a [b, *a]",
    "!!binary aGVsbG8=",
    "!evil {{}}",
]


@pytest.mark.slow
@pytest.mark.parametrize("text", CODE)
@pytest.mark.parametrize("key", ["group: default", "base: 10000.0", "field: text", "vocab_size: 260"])
def test_a_stored_config_names_no_types_runs_no_resolvers_and_reads_no_environment(alone, monkeypatch, key, text):
    monkeypatch.setenv("POSEXP_SECRET", "s3cret")
    mark = alone / "ran"
    edit(run_of(alone) / "config.yaml", key, f"{key.partition(':')[0]}: {text.format(mark=mark)}")
    with pytest.raises(RunFailed, match=r"config\.yaml cannot be read: it has an? "):
        Run(run_of(alone)).config()
    if key == "group: default" and text in CODE[:1] + CODE[5:6]:
        for answer in all_commands(alone):
            assert "s3cret" not in answer.out + answer.err
    assert not mark.exists()


EVIL = """
from pathlib import Path
from posexp.schemes import Scheme
Path(__file__).with_name("ran").touch()
class Evil(Scheme):
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "node",
    [
        "{_target_: evil.Evil}",
        "{_target_: posexp.schemes.offset.Offset, most: 8, inner: {_target_: evil.Evil}}",
        "{_target_: posexp.schemes.alternate.Alternate, every: 2, inner: [{_target_: evil.Evil}], other: rope}",
        "{_target_: posexp.schemes.rope.Rope, base: {_target_: evil.Evil}, fraction: 1.0}",
        "[{_target_: evil.Evil}]",
        "{_target_: os.system, _args_: [touch ran]}",
        "{_target_: posexp.schemes.rope.torch.hub.load, _args_: [evil, evil]}",
        "{_target_: subprocess.run, _partial_: false, args: [touch, ran]}",
    ],
)
@pytest.mark.parametrize("key", ["scheme", "window", "temperature", "mixer"])
def test_a_part_from_outside_posexp_is_not_imported_unless_it_is_trusted(alone, key, node):
    (alone / "evil.py").write_text(EVIL)
    for run in runs_of(alone):
        lines = (run / "config.yaml").read_text().splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith(f"{key}:"))
        last = next(n for n, line in enumerate(lines) if n > first and not line.startswith(" "))
        (run / "config.yaml").write_text("\n".join([*lines[:first], f"{key}: {node}", *lines[last:]]) + "\n")
    for answer in all_commands(alone, [*READERS[3:], *DRAWERS]):
        assert not (alone / "ran").exists(), answer
    assert "evil" not in sys.modules
    for words in (["eval", "--lengths", "24", "wandb.mode=disabled"], ["export"]):
        answer = here(*words, cwd=alone)
        assert answer.code and ("set trust=true" in answer.err or "cannot be read" in answer.err)


@pytest.mark.slow
def test_a_model_from_outside_posexp_is_not_imported_unless_it_is_trusted(alone):
    (alone / "evil.py").write_text(EVIL)
    for run in runs_of(alone):
        text = (run / "config.yaml").read_text().replace("  target: ''\n", "")
        (run / "config.yaml").write_text(text.replace("\nmodel:\n", "\nmodel:\n  target: evil.Evil\n", 1))
        assert Run(run).config().model.target == "evil.Evil"
    for answer in all_commands(alone, [*READERS[3:], *DRAWERS]):
        assert not (alone / "ran").exists(), answer
    for words in (["eval", "--lengths", "24", "wandb.mode=disabled"], ["export"]):
        assert "set trust=true" in here(*words, cwd=alone).err and not (alone / "ran").exists()
        here(*words, "trust=true", cwd=alone)
        assert (alone / "ran").exists()
        (alone / "ran").unlink()
        sys.modules.pop("evil", None)


@pytest.mark.slow
def test_a_trusted_part_is_imported(alone):
    (alone / "evil.py").write_text(EVIL)
    for run in runs_of(alone):
        edit(run / "config.yaml", (run / "config.yaml").read_text().split("_target_: ")[1].split("\n")[0], "evil.Evil")
    for words in (["eval", "--lengths", "24", "wandb.mode=disabled"], ["export"]):
        posexp(*words, "trust=true", cwd=alone)
        assert (alone / "ran").exists()
        (alone / "ran").unlink()


@pytest.mark.parametrize("target", hostile.TARGETS)
def test_only_classes_of_posexps_own_modules_are_its_own(target):
    own = {"posexp.schemes.Scheme", "posexp.windows.Window"}
    own |= {f"posexp.schemes.{name}" for name in ("rope.Rope", "alibi.Alibi", "learned.Learned", "dape.DAPE", "t5.T5")}
    assert is_own(target) == (target in own | {"posexp.windows.sliding.Sliding", "posexp.temperatures.SSMax"})


def test_targets_are_found_wherever_they_are():
    assert targets({"a": [{"b": {"_target_": "x"}}, [[{"_target_": "y"}]]], "_target_": 5}) == ["5", "x", "y"]


@pytest.mark.slow
def test_what_lies_beside_the_command_stands_in_for_no_library(alone):
    for name in ("peft", "kernels", "pandas", "sentencepiece", "evil", "bitsandbytes", "yaml", "typing_extensions"):
        (alone / f"{name}.py").write_text(EVIL)
    answer = posexp("eval", "--lengths", "24", "wandb.mode=disabled", cwd=alone)
    assert answer.code == 0 and not (alone / "ran").exists(), answer.err


# ---- places that names could lead to


@pytest.mark.parametrize("name", [name for name in hostile.NAMES if not is_name(name)])
@pytest.mark.parametrize("key", ["group", "label", "name", "folder"])
def test_a_name_that_is_no_plain_folder_name_is_refused(key, name):
    with pytest.raises(Misuse) as refused:
        check_name(key, name)
    assert str(refused.value).isprintable()


def test_what_is_a_plain_name():
    kept = [name for name in hostile.NAMES if is_name(name)]
    assert all(Path("a", name).name == name and len(name.encode()) <= LONGEST_NAME for name in kept)
    assert is_name("rope-s0-1234abcd") and is_name("naïve · 2 %") and not is_name("a" * 201)


@pytest.mark.parametrize("name", hostile.NAMES)
def test_losses_are_kept_in_the_runs_folder_whatever_a_row_says(tmp_path, name):
    name = untrusted.visible(name)
    for column in ("protocol", "targets_hash", "window", "transform", "control"):
        path = losses.path_of(tmp_path, row_of(**{column: name}))
        assert path.resolve().parent == (tmp_path / "losses").resolve()
        assert len(path.name.encode()) < 255 and path.name.isprintable()


@pytest.mark.parametrize("name", [*hostile.NAMES, 5, None, ["a"], {"a": "b"}])
def test_a_checkpoint_is_called_by_a_plain_name_whatever_its_config_says(name):
    called = name_of({"posexp_run": name}, "folder")
    assert is_name(called) and is_name(f"hf-{called}-01234567", most=255)
    assert is_name(name_of({}, name if isinstance(name, str) else "folder"))


@pytest.mark.slow
def test_a_stored_config_chooses_no_folder_to_write_to(alone, tmp_path):
    places = {"results": tmp_path / "elsewhere", "cache": tmp_path / "new", "group": "other"}
    config = run_of(alone) / "config.yaml"
    edit(config, "results: results", f"results: {places['results']}")
    edit(config, "cache: cache", f"cache: {places['cache']}")
    edit(config, "group: default", "group: other")
    before = sorted(tmp_path.iterdir())
    runs = f"runs={run_of(alone).name}"
    answer = here("eval", "--lengths", "24", "wandb.mode=disabled", runs, "cache=cache", cwd=alone)
    assert answer.code == 0, answer.err
    home = {"HOME": str(tmp_path / "home")}
    answer = posexp("eval", "--lengths", "28", "wandb.mode=disabled", runs, cwd=alone, **home)
    assert answer.code == 0 and (tmp_path / "home/.cache/posexp/tokens").is_dir(), answer.err
    assert [path for path in tmp_path.iterdir() if path not in before] == [tmp_path / "home"]
    edit(config, "group: other", "group: ../../other")
    assert "must be a plain folder name" in here("eval", "--lengths", "32", runs, cwd=alone).refusal(code=1)


@pytest.mark.parametrize("name", ["../train.bin", "/etc/passwd", "valid.bin/../../x", "other.bin", "..", ""])
def test_a_store_names_no_files_but_its_own(group, name):
    (store,) = group.glob("cache/tokens/*/store.json")
    meta = json.loads(store.read_text())
    meta["files"][name] = meta["files"].pop("train.bin")
    store.write_bytes(hostile.signed(meta))
    with pytest.raises(DamageError, match=r"store\.json does not describe a token store"):
        Store(store.parent)


@pytest.mark.parametrize("dtype", ["O", "object", "float64", "U100000", "i1", "", None, 5, ["uint16"]])
def test_a_store_holds_numbers_of_tokens_alone(group, dtype):
    (store,) = group.glob("cache/tokens/*/store.json")
    meta = json.loads(store.read_text()) | {"dtype": dtype}
    store.write_bytes(hostile.signed(meta))
    with pytest.raises(DamageError, match=r"store\.json does not describe a token store"):
        Store(store.parent)


@pytest.mark.parametrize("about", [{"name": "os.system", "size": 4}, {"name": "copy", "size": 1 << 40}, {}, "copy", 5])
def test_a_stores_task_is_one_of_posexps(group, about):
    (store,) = group.glob("cache/tokens/*/store.json")
    store.write_bytes(hostile.signed(json.loads(store.read_text()) | {"task": about}))
    with pytest.raises(DamageError, match=r"store\.json does not describe a token store"):
        Store(store.parent)


LINKED = [
    *("rows.jsonl", "metrics.jsonl", "train.log", "provenance.json", "tokenizer.json", "config.yaml", "holder.json"),
    *(".lock", "losses", "checkpoint", "inspect", "export", "wandb", "losses/x.npz", "inspect/bias.png"),
    *("export/config.json", "checkpoint/step-00000008.json", "checkpoint.json"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", LINKED)
def test_nothing_is_written_through_a_link_in_a_run_folder(alone, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    for kept in ("secret", "bias.png", "config.json", "rows.csv", "rope-vs-alibi.md"):
        (outside / kept).write_text("s3cret: 1\n")
    path = run_of(alone) / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside if name in ("losses", "checkpoint", "inspect", "export", "wandb") else outside / "secret")
    commands = [READERS[0], *READERS[3:]]
    commands += READERS[1:2] if name in ("config.yaml", "provenance.json", "rows.jsonl", "checkpoint.json") else []
    commands += DRAWERS if name.startswith(("inspect", "export", "checkpoint")) else []
    for answer in all_commands(alone, commands):
        assert "s3cret" not in answer.out + answer.err, "nor read through it"
    assert {kept.name: kept.read_text() for kept in outside.iterdir()} == dict.fromkeys(
        ("secret", "bias.png", "config.json", "rows.csv", "rope-vs-alibi.md"), "s3cret: 1\n"
    )
    for page in alone.glob("results/default/report/page.html"):
        assert "s3cret" not in page.read_text()
    answer = here("train", "+scheme=rope", *TINY, cwd=alone)
    assert "symbolic link" in answer.refusal(code=answer.code), answer.err


@pytest.mark.parametrize(("name", "command"), [("report", ["report"]), ("compare", ["compare", "rope", "alibi"])])
def test_nothing_is_written_through_a_link_in_a_group(group, tmp_path, name, command):
    (tmp_path / "outside").mkdir()
    (group / "results" / "default" / name).symlink_to(tmp_path / "outside")
    assert f"{name} is a symbolic link" in here(*command, cwd=group).refusal(code=1)
    assert not list((tmp_path / "outside").iterdir())


def test_a_file_is_not_written_through_a_link_where_it_is_written_aside(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / f".rows.{os.getpid()}").symlink_to(tmp_path / "victim")
    atomic.write_file(tmp_path / "rows", "new")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "rows").read_text() == "new"


def test_publishing_follows_no_link_and_stays_in_its_folders(group, tmp_path):
    assert here("report", cwd=group).code == 0
    for words in (["default", ".."], ["../results/default", "a"], ["default", "a/../.."], ["--unpack", "../default"]):
        code, said = publish(*words, cwd=group)
        assert code == 2 and "must be a plain folder name" in said
    assert publish("default", "study", cwd=group)[0] == 0
    (tmp_path / "secret").write_text("s3cret")
    rows = run_of(group) / "rows.jsonl"
    rows.unlink()
    rows.symlink_to(tmp_path / "secret")
    code, said = publish("default", "again", cwd=group)
    assert code == 1 and "is a symbolic link" in said and not (group / "results/studies/again").exists()


def test_unpacking_writes_over_nothing_and_outside_of_nothing(group):
    assert here("report", cwd=group).code == 0 and publish("default", "study", cwd=group)[0] == 0
    (group / "results" / "study" / run_of(group).name).mkdir(parents=True)
    code, said = publish("--unpack", "study", cwd=group)
    assert code == 2 and "exists: unpack into another folder" in said
    lines = group / "results" / "studies" / "study" / "runs.jsonl"
    name = {**untrusted.parsed(lines.read_bytes().splitlines()[0]), "name": "../../escape"}
    lines.write_bytes(jsonl.line_of(name))
    code, said = publish("--unpack", "study", "elsewhere", cwd=group)
    assert code == 2 and "must be a plain folder name" in said and not (group / "elsewhere").exists()


# ---- what is printed and drawn


HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\u202e[/red][link=x]|a|b| <script>alert(1)</script> \\input{x} $x$ ${oc.env:HOME}\r\n=1+1"
)


@pytest.mark.slow
def test_names_and_messages_from_files_are_only_text(group):
    run = run_of(group)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for index, row in enumerate(rows):
        row |= {"kernel_path": HOSTILE, "extra": HOSTILE}
        row |= [{"status": f"failed: {HOSTILE}", "nll": None}, {"protocol": HOSTILE}, {"window": HOSTILE}][index % 3]
    rows.append(rows[0] | {"corpus": HOSTILE, "transform": HOSTILE, "targets_hash": HOSTILE})
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    jsonl.append(run / "metrics.jsonl", {"step": 8, "status": HOSTILE, "reason": HOSTILE})
    (run / "provenance.json").write_text(json.dumps({HOSTILE: {HOSTILE: HOSTILE}, "store": HOSTILE}))
    shutil.copytree(run, run.with_name("\x1b[31mred\n"))
    shutil.copytree(run, run.with_name("x" * 220))
    answers = all_commands(group, READERS[:3])
    assert answers[0].code == 0 and answers[1].code == 0, answers[:2]
    report = group / "results" / "default" / "report"
    page = (report / "page.html").read_text().replace(get_plotlyjs(), "")
    assert "<script>alert" not in page and page.count("<script") == 3 and "\x1b" not in page
    tex = (report / "table.tex").read_text()
    assert r"\input" not in tex and r"\textbackslash{}input\{x\}" in tex and "<script>" not in tex
    markdown = (report / "table.md").read_text()
    assert "<script>" not in markdown and r"\<script\>" in markdown and r"\|a\|b\|" in markdown
    for name in ("table.md", "table.tex", "page.html", "curves.svg"):
        text = (report / name).read_text().replace(get_plotlyjs(), "")
        assert all(character.isprintable() or character in "\n\t" for character in text), name
    with (report / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert all(None not in row for row in read) and untrusted.visible(HOSTILE) in {row["extra"] for row in read}


def test_what_is_said_is_one_line_that_moves_nothing(capsys):
    say(HOSTILE)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said[:-1].isprintable() and "\\x1b[2J" in said


# ---- bombs


@pytest.fixture(autouse=True)
def within_bounds() -> Iterator[None]:
    """No test here may take long, or much memory."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 1200, "MiB"
    assert time.process_time() - began < 60


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "it has an alias"),
        ("a: " + "[" * 20_000, "nested too deeply|maximum nesting"),
        ("".join(f"{' ' * n}a:\n" for n in range(300)) + " " * 300 + "b: 1\n", "nested too deeply|maximum nesting"),
        ("{a: " * 5000, "nested too deeply|maximum nesting"),
        ("x: " + "9" * 100_000, "not valid YAML|no number|digits|cannot be read"),
        ("\0", "not valid YAML"),
        ("- a\n- b\n", "it holds no keys"),
        ("just text", "it is cut off"),
        ("", "it is cut off|it holds no keys"),
        ("a: 1\na: 2\n", "not valid YAML"),
        ("#" * (2 << 20), "has 2,097,152 bytes"),
        ("device: " + "1:" * 4000 + "1", "Invalid value .1:1:1.*remove it and repeat"),
        ("seed: " + "1:" * 40_000 + "1", "80,001 characters"),
        ("device: auto\nscheme: {" + "".join(f"k{n}: 1, " for n in range(70_000)) + "}\n", "more than 4,000 keys"),
        ("device: auto\ntrain: {tokens: 1:1:1}\n", "could not be converted to Integer"),
        ("device: auto\nmodel: {d_model: 1000000000}\nlabel: a\nscheme: a\n", "must be at most 1048576"),
        ("device: auto\ndata: {task_size: 900719925474}\nlabel: a\nscheme: a\n", "must be at most 1048576"),
        (
            f"device: auto\neval: {{lengths: {list(range(1, 1500))}}}\nlabel: a\nscheme: a\n",
            "must have at most 1000 lengths",
        ),
    ],
)
def test_a_config_is_bounded(tmp_path, text, says):
    (tmp_path / "config.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(RunFailed, match=says):
        Run(tmp_path).config()
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ["1:1", "0x10", "0b1", "1_000", "017", "2024-11-28", "yes", "Null", "9" * 40])
def test_a_number_of_a_stored_config_is_decimal_and_all_else_is_text(text):
    assert stored_yaml.yaml_of(f"a: {text}".encode()) == {"a": text}


def test_a_stored_config_reads_back_what_is_written():
    values = [
        0,
        -7,
        10**15,
        1.5,
        1e-05,
        1e16,
        1e300,
        float("inf"),
        True,
        False,
        None,
        "",
        "1e3",
        "1:1",
        "on",
        "~",
        "a: b",
    ]
    made = {"values": values, "label": "1_0", "paths": ["2024", "x"], "tokens": 5}
    assert stored_yaml.yaml_of(OmegaConf.to_yaml(OmegaConf.create(made)).encode()) == made


def test_a_config_that_could_not_be_read_again_is_not_written(tmp_path):
    paths = [f"{n}.txt" for n in range(5000)]
    config = TrainCommand(
        scheme={}, label="a", results=str(tmp_path), data=DataConfig(source=Source.files, paths=paths)
    )
    with pytest.raises(Misuse, match="could not be read again, since it holds more than 4,000 keys and values"):
        Run.of(config).create(config)
    assert not list(tmp_path.iterdir())


# ---- the text that a stored config names


def test_a_store_is_built_for_a_stored_config_only_from_text_whose_hash_its_provenance_names(alone):
    run = run_of(alone)
    runs = ["--lengths", "24", "wandb.mode=disabled", f"runs={run.name}", "cache=new"]
    (alone / "secret.txt").write_text("mine alone " * 50)
    edit(run / "config.yaml", "paths: text", "paths: secret.txt")
    refused = here("eval", *runs, cwd=alone).refusal()
    assert "no token store new/tokens" in refused and "the local text gives" in refused
    edit(run / "provenance.json", '"store": ', '"other": ')
    assert "data.store must be 16 hex digits, got 'None'" in here("eval", *runs, cwd=alone).refusal()
    assert not list((alone / "new").glob("tokens/*"))


def test_a_regular_expression_of_the_run_is_not_used_before_its_text_has_the_right_hash(alone):
    (alone / "text" / "slow.txt").write_text("a" * 5000)
    edit(run_of(alone) / "config.yaml", "document_start: ''", "document_start: (a+)+$")
    runs = ["--lengths", "24", "wandb.mode=disabled", f"runs={run_of(alone).name}", "cache=new"]
    assert "the local text gives" in here("eval", *runs, cwd=alone).refusal()


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, '{"a":' * 100_000, "[" * 40 + "]" * 40, "9" * 5000, str(1 << 54), "1e999", "-1e999", "NaN"),
        *("Infinity", '{"a": -Infinity}', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), '"\n"', ""),
    ],
)
def test_json_is_of_finite_numbers_and_not_deep(text):
    with pytest.raises(ValueError):
        untrusted.json_of(text.encode("latin-1"))


def test_text_of_json_can_be_printed():
    value = untrusted.json_of(b'{"\\u001b[2J": ["a\\nb", "\\ud800", "\\u202e", "caf\xc3\xa9", 1.5, null, true]}')
    assert value == {"\\x1b[2J": ["a\\nb", "\\ud800", "\\u202e", "café", 1.5, None, True]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.jsonl", "metrics.jsonl"])
def test_rows_without_end_are_no_hang(alone, name):
    path = run_of(alone) / name
    with path.open("wb") as file:
        file.write(b"{}\n" * 20_000)
    for answer in all_commands(alone, READERS[:4]):
        assert len(answer.err) < 4000
    with path.open("wb") as file:
        file.truncate(8 << 30)  # without taking room
    with pytest.raises(RunFailed, match="has 8,589,934,592 bytes"):
        jsonl.read_lines(path, say)
    path.write_bytes(b"{torn\n" * 20_000)
    answer = here("runs", cwd=alone)
    assert "line 1, 2, 3, 4, 5, 6, 7, 8 and 19,992 more cannot be read" in answer.err or name == "metrics.jsonl"
    path.write_bytes(b"[" * (30 << 20))
    assert here("runs", cwd=alone).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("column", ["length", "targets_hash", "window", "seed"])
def test_very_many_values_of_a_column_are_no_hang(group, column):
    run = run_of(group)
    row = json.loads((run / "rows.jsonl").read_text().splitlines()[0])
    kind = int if column in ("length", "seed", "stride") else str
    lines = [json.dumps(row | {column: kind(n + 1)}) for n in range(20_000)]
    (run / "rows.jsonl").write_text("\n".join(lines) + "\n")
    answers = all_commands(group, READERS[:3])
    assert sum(len(answer.out + answer.err) for answer in answers) < 20_000_000
    for answer in answers:
        assert len(answer.err) < 4000 and answer.err.count("\n") < 10


def test_a_pipe_in_place_of_a_file_is_no_hang(alone):
    run = run_of(alone)
    for path in [*run.glob("*.*"), *run.glob("checkpoint/*"), *run.glob("losses/*")]:
        path.unlink()
        os.mkfifo(path)
    os.mkfifo(run / "checkpoint.json")
    all_commands(alone)


@pytest.mark.parametrize("size", [0, 1, 8, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_checkpoints_header_claims_what_it_likes(group, size):
    path = sorted((run_of(group) / "checkpoint").glob("*.safetensors"))[-1]
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    about = path.with_suffix(".json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"sha256": atomic.sha256(path)}))
    told: list[str] = []
    assert checkpoint.restore(path.parent, told.append) is None or "is damaged" in told[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("d_model: 16", "d_model: 1048576"),
        ("n_layer: 1", "n_layer: 1000000000"),
        ("n_layer: 1", "n_layer: 40"),
        ("d_model: 16", "d_model: 1000000000000"),
        ("length: 8", "length: 1000000000"),
        ("seed: 0", f"seed: {10**30}"),
    ],
)
def test_a_config_makes_no_model_larger_than_its_checkpoint(alone, old, new):
    edit(run_of(alone) / "config.yaml", old, new)
    runs = f"runs={run_of(alone).name}"
    answer = here("eval", "--lengths", "24", "wandb.mode=disabled", runs, cwd=alone)
    if "length" not in old:
        assert answer.code == 1 and "Traceback" not in answer.err, answer
        assert any(words in answer.err for words in ("does not fit the model", "describes no model", "cannot be read"))


def test_an_option_of_a_scheme_makes_no_memory(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "own"))
    assert here("train", "+scheme=cope", *TINY, "group=other", cwd=folder).code == 0
    (run,) = folder.glob("results/other/cope-*")
    edit(run / "config.yaml", "max_pos: ", "max_pos: 9000000")
    answer = here("eval", "--lengths", "24", "wandb.mode=disabled", "group=other", cwd=folder)
    assert "does not fit the model: scheme.layers.0.table_PC is" in answer.refusal(code=1)


def test_a_link_in_place_of_a_lock_leaves_what_it_leads_to(alone, tmp_path):
    (tmp_path / "victim").write_text("mine")
    (run_of(alone) / ".lock").unlink(missing_ok=True)
    (run_of(alone) / ".lock").symlink_to(tmp_path / "victim")
    jsonl.append(run_of(alone) / "metrics.jsonl", {"step": 8, "status": "running"})
    assert here("runs", cwd=alone).code == 0
    here("train", "+scheme=rope", *TINY, cwd=alone)
    assert (tmp_path / "victim").read_text() == "mine"


# ---- checkpoints of transformers


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    pytest.importorskip("transformers")
    from support.checkpoints import checkpoint as make

    return make(tmp_path_factory.mktemp("llama"), "llama")


def changed(llama: Path, tmp_path: Path, **changes: object) -> Path:
    folder = Path(shutil.copytree(llama, tmp_path / "changed"))
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def evaluated(folder: Path, group: Path) -> Answer:
    return here("eval", "--lengths", "8,16", f"hf={folder}", "data=files", "data.paths=text", "wandb.mode=disabled",
                "eval.protocols=[nonoverlapping]", "cache=cache", "group=theirs", cwd=group)  # fmt: skip


@pytest.mark.slow
def test_pickled_weights_and_code_beside_a_checkpoint_are_left_alone(llama, group, tmp_path):
    mark = tmp_path / "ran"
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel", "AutoTokenizer": "own.OwnTokenizer"}
    folder = changed(llama, tmp_path, auto_map=auto)
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "vocab.pkl", "rng_state.pth"):
        (folder / name).write_bytes(pickle.dumps(Boom(mark)))
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass OwnConfig: pass\n")
    answer = evaluated(folder, group)
    assert answer.code == 0 and not mark.exists(), answer.err  # transformers knows llama by itself
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "its code comes with the checkpoint" in evaluated(folder, group).refusal() and not mark.exists()
    (folder / "model.safetensors").unlink()
    assert "loads safetensors alone" in evaluated(folder, group).refusal() and not mark.exists()


def test_a_checkpoint_of_any_name_stays_in_its_group(llama, group, tmp_path):
    folder = changed(llama, tmp_path, posexp_run="x/../../../../escape")
    assert evaluated(folder, group).code == 0
    (run,) = (group / "results" / "theirs").iterdir()
    assert run.name.startswith("hf-changed-") and not list(tmp_path.rglob("escape*"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 1 << 20, "head_dim": 1 << 19}, "its config describes a larger model than its weights"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"vocab_size": 1 << 33}, "its config describes a larger model than its weights"),
        ({"attn_implementation": "somebody/kernels"}, "code from outside transformers, 'somebody/kernels'"),
        ({"num_attention_heads": 0}, "transformers cannot load it"),
        ({"hidden_size": "x" * 100_000}, "transformers cannot load it"),
    ],
)
def test_a_checkpoints_config_asks_for_no_more_than_its_weights(llama, group, tmp_path, changes, says):
    assert says in evaluated(changed(llama, tmp_path, **changes), group).refusal()


def test_a_checkpoints_config_may_be_no_bomb(llama, group, tmp_path):
    folder = changed(llama, tmp_path)
    (folder / "config.json").write_text('{"a":' * 100_000)
    assert "its config.json cannot be read" in evaluated(folder, group).refusal()
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert "holds no config.json" in evaluated(folder, group).refusal()


def test_kernels_from_elsewhere_are_found_anywhere_in_a_config():
    assert code_from_outside({"text_config": [{"_attn_implementation": "a/b"}]}) == "a/b"
    assert code_from_outside({"attn_implementation": "sdpa", "x": "a/b"}) is None


# ---- tokenizers


@pytest.mark.parametrize("content", [b"", b"[1]", b"\x80\x04", b'{"version": "1.0"}', b"[" * 100_000])
def test_a_tokenizer_that_is_none_is_refused(group, content):
    (group / "tokenizer.json").write_bytes(content)
    refused = here("train", "+scheme=rope", *TINY, "data.tokenizer=tokenizer.json", cwd=group).refusal()
    assert "tokenizer.json is not a tokenizer.json" in refused


def test_a_tokenizers_largest_token_is_bounded(group):
    layout = json.loads((run_of(group) / "tokenizer.json").read_text())
    layout["model"]["vocab"]["!"] = (1 << 32) - 1
    (group / "tokenizer.json").write_text(json.dumps(layout))
    refused = here("train", "+scheme=rope", *TINY, "data.tokenizer=tokenizer.json", cwd=group).refusal()
    assert "its largest token id must be below 16777216, got 4294967295" in refused


# ---- what is typed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([f"seed={10**30}"], "seed=1e+30 must be at most 1099511627776"),
        (["train.lr=inf"], "train.lr is too large"),
        (["train.length=9999999999999"], "must be at most"),
        (["label='\x1b[31m'"], "must be a plain folder name"),
        ([f"label={'x' * 300}"], "must be a plain folder name of at most 200 bytes"),
        (["group=../x"], "must be a plain folder name"),
    ],
)
def test_what_no_folder_or_number_can_hold_is_refused(group, words, says):
    assert says in here("train", "+scheme=rope", *TINY, *words, cwd=group).refusal()


def test_a_glob_that_is_none_is_said_to_be():
    with pytest.raises(PosexpError, match="is not a glob of folders"):
        from posexp.runs.run import find_runs

        find_runs("results", "default", "/etc/*")
