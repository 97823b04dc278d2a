"""Machines without a network: nothing is asked of one, nothing waits for one, and what was brought along is used.

Commands run in a network namespace of their own. In `swallowed` every packet leaves and none is answered, as behind a
firewall that drops them: there a client waits where elsewhere it fails.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.command import SCRIPT, TINY, Answer, files_of, run_of, world

from posexp.config.sections import DataConfig, Source
from posexp.data.store import key_of
from posexp.storage.network import reachable

ROOT = Path(__file__).resolve().parents[2]
UP = "ip link set lo up"
WIRES = {
    "down": "true",
    "up": UP,
    "swallowed": f"{UP} && ip addr add 10.9.9.1/32 dev lo && ip route add default dev lo",
}
SMALL = [word for word in TINY if not word.startswith(("data.paths", "wandb"))] + ["eval.lengths=[16]"]
KEY = "a" * 40


def cut_off(wire: str) -> list[str] | None:
    """What to put before a command to cut its network; None where this is not allowed."""
    for unshare in (["unshare", "-n"], ["unshare", "-rn"]):
        command = [*unshare, "sh", "-c", f'{WIRES[wire]} && exec "$@"', "sh"]
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return None


CUT = {wire: cut_off(wire) for wire in WIRES}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(None in CUT.values(), reason="needs unshare, ip and the right to use them"),
]


def alone(wire: str, *words: str | Path, cwd: Path, **environment: str) -> Answer:
    """The outcome of a command that has no network."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HOME": str(cwd), "HF_HOME": str(cwd / "hf")}
    command = [*(CUT[wire] or []), *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=kept | own | environment, capture_output=True, text=True, timeout=400)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def node(tmp_path_factory, tmp_path) -> Path:
    """A machine that got the token store and the runs, but not the text."""
    world(tmp_path_factory, tmp_path)
    shutil.rmtree(tmp_path / "text")
    return tmp_path


def loss_of(run: Path) -> float:
    """The last of training."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row][-1]


def store_of(folder: Path) -> str:
    return json.loads((run_of(folder) / "provenance.json").read_text())["store"]


@pytest.mark.parametrize("wire", ["down", "swallowed"])
def test_a_node_trains_and_measures_from_the_store_it_was_given(node, wire):
    key = store_of(node)
    words = ["train", "+scheme=none", *SMALL, "data.paths=text"]
    assert "data.paths: there is no file text" in alone(wire, SCRIPT, *words, cwd=node).refusal()
    answer = alone(wire, SCRIPT, *words, f"data.store={key}", cwd=node)
    assert answer.code == 0, answer.err
    (none,) = (node / "results" / "default").glob("none-s0-*")
    assert json.loads((none / "provenance.json").read_text())["store"] == key
    assert len(list(none.glob("wandb/offline-run-*"))) == 1, "of training and its evaluation"
    answer = alone(wire, SCRIPT, "eval", "--lengths", "8,32", "--runs", "rope*", cwd=node)
    assert answer.code == 0 and "same_targets 32: ppl" in answer.err, answer.err


def test_no_command_asks_anything_of_a_network(tmp_path_factory, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    folder = world(tmp_path_factory, tmp_path)
    script = folder / "all.sh"
    lines = [
        *(["--help"], ["schemes"], ["runs"], ["train", "--cfg", "job", "+scheme=rope"]),
        ["train", "+scheme=t5", *SMALL, "data.paths=text", "data.cache=new"],  # builds its store: datasets, tokenizers
        ["eval", "--lengths", "8,16,32", "--runs", "t5*"],
        ["report", "--html"],
    ]
    script.write_text("\n".join(["set -e", *(shlex.join([str(SCRIPT), *line]) for line in lines)]))
    calls = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "trace", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    answer = alone("up", *calls, "sh", script, cwd=folder)
    assert answer.code == 0, answer.err
    trace = (folder / "trace").read_text().splitlines()
    assert any("AF_UNIX" in line for line in trace), "wandb talks to a process of its own"
    assert [line for line in trace if "AF_INET" in line] == []


def test_a_dead_network_costs_seconds_and_is_said_in_one_line(node):
    code = """
import time
from pathlib import Path
from posexp.config.sections import DataConfig, LoggerName, Source, WandbConfig, WandbMode
from posexp.data.load import load_store
from posexp.errors import Misuse
from posexp.runs.logger import Logged
from posexp.runs.loggers import Loggers
start = time.perf_counter()
for _ in range(2):
    about = Logged(Path("a/b"), "b", "train", "a", "label", {})
    Loggers([LoggerName.wandb], WandbConfig(mode=WandbMode.online), lambda: about).finish()
print(time.perf_counter() - start)
start = time.perf_counter()
try:
    load_store(DataConfig(Source.hub, dataset="some/set", cache="cache"))
except Misuse as error:
    print(time.perf_counter() - start)
    print(error)
"""
    (node / "a" / "b").mkdir(parents=True)
    for wire in ("down", "swallowed"):
        answer = alone(wire, sys.executable, "-c", code, cwd=node, WANDB_API_KEY=KEY)
        assert answer.code == 0, answer.err
        copies, hub, line = answer.out.splitlines()
        assert float(copies) < 30 and float(hub) < 15, answer.out  # unguarded: 100 and 24, and 20 for each load
        assert line.startswith("cannot reach the Hugging Face hub for 'some/set': no network?")
        assert "scripts/bundle" in line
        (said,) = [line for line in answer.err.splitlines() if "wandb" in line]
        assert said.startswith("wandb is skipped online; an offline copy is kept, for `wandb sync` (ConnectionError: ")
    assert len(list(node.glob("a/b/wandb/offline-run-*"))) >= 2


@pytest.mark.parametrize("source", [["data=wikitext103"], ["data=stdlib"]])
def test_a_store_of_the_hub_or_of_another_python_is_used_without_either(node, source):
    """As it would have been made elsewhere; what a store is called by says nothing of what is in it."""
    made = node / "cache" / "tokens" / store_of(node)
    cuts = {"document_start": "^ = [^=].* = $"} if "hub" in source[0] or "wiki" in source[0] else {}
    meta = json.loads((made / "store.json").read_text())
    hub = {"source": "hub", "dataset": "Salesforce/wikitext", "subset": "wikitext-103-raw-v1", **cuts}
    choices = {"tokenizer": ["bpe", 300], **(hub if cuts else {})}
    write_meta(made, meta | {"choices": choices})
    config = DataConfig(vocab_size=300, **(hub | {"source": Source.hub})) if cuts else None
    key = key_of(config) if config else "0123456789abcdef"
    made.rename(made.with_name(key))
    words = [word for word in SMALL if word != "data=files"]
    pin = [] if cuts else [f"data.store={key}"]
    answer = alone("swallowed", SCRIPT, "train", "+scheme=none", *words, *source, *pin, cwd=node)
    assert answer.code == 0 and "building the token store" not in answer.err, answer.err
    (none,) = (node / "results" / "default").glob("none-s0-*")
    assert json.loads((none / "provenance.json").read_text())["store"] == key


def write_meta(folder: Path, meta: dict) -> None:
    from posexp.data.store import meta_digest

    meta.pop("sha256")
    (folder / "store.json").write_text(json.dumps(meta | {"sha256": meta_digest(meta)}))


def test_a_bundle_installs_and_runs_without_a_network(tmp_path_factory, tmp_path):
    """With the large packages left to the node: here those of this environment."""
    if not reachable(os.environ.get("PIP_INDEX_URL", "https://pypi.org")):
        pytest.skip("no package index in reach")
    here = world(tmp_path_factory, tmp_path / "here")
    large = ["torch", "datasets", "wandb", "matplotlib", "scipy", "numpy", "pandas", "tokenizers", "rich"]
    store = ["--store", "data=files", "data.paths=text", "data.vocab_size=300"]
    command = [sys.executable, str(ROOT / "scripts" / "bundle"), "bundle", "--without", *large, *store]
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=600, env=own)
    assert done.returncode == 0, done.stderr
    bundle = here / "bundle"
    names = {path.name.partition("-")[0].lower() for path in (bundle / "wheels").iterdir()}
    assert {"pip", "posexp", "hydra_core", "omegaconf", "antlr4_python3_runtime", "pyyaml", "filelock"} <= names
    assert not names & {*large, "pyarrow", "contourpy", "sympy"}, "nor what only those need"
    key = store_of(here)
    assert f"data.store={key}  of  data=files data.paths=text data.vocab_size=300" in done.stdout
    node = tmp_path / "node"
    node.mkdir()
    theirs = {"PYTHONPATH": sysconfig.get_path("purelib"), "HOME": str(node), "PYTHON": sys.executable}
    before = files_of(bundle)
    answer = alone("down", bundle / "install", cwd=node, **theirs)
    assert answer.code == 0, answer.err
    assert files_of(bundle) == before, "a bundle may lie on a disk that cannot be written"
    posexp = node / "posexp" / "bin" / "posexp"
    words = [word for word in SMALL if not word.startswith("data.cache")] + ["data.paths=text", f"data.store={key}"]
    answer = alone("down", posexp, "train", "+scheme=rope", *words, cwd=node, **theirs)
    assert answer.code == 0 and "building" not in answer.err, answer.err
    code = "import posexp; print(posexp.__file__)"
    answer = alone("down", posexp.with_name("python"), "-c", code, cwd=node, **theirs)
    assert answer.out.startswith(str(node / "posexp")), answer
    assert loss_of(run_of(node)) == loss_of(run_of(here))
    wrong = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 1 and wrong.stderr == "bundle: bundle exists: choose a new folder\n"
