"""posexp bench: what is counted, what ratios are to, and what becomes of a contender that cannot go on. No test looks
at how fast anything was."""

import importlib
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.command import Answer, here
from torch.utils.flop_counter import FlopCounterMode

from posexp.bench.interleave import Measured, measure, workers
from posexp.bench.models import Contender
from posexp.bench.rows import rows_of
from posexp.bench.worker import flops_per_token, matmul_parameters
from posexp.config.bench import BenchCommand
from posexp.config.components import read_options
from posexp.config.sections import AttentionPath, Device, Mlp, ModelConfig, Precision, config_dir
from posexp.model.decoder import build_decoder
from posexp.report.bench_records import read_records

pytestmark = pytest.mark.slow

TINY = ["model.d_model=32", "model.n_layer=1", "model.n_head=2", "vocab_size=257", "batch=2", "length=16", "threads=1"]
COMMAND = BenchCommand(
    model=ModelConfig(d_model=32, n_layer=1, n_head=2),
    vocab_size=257,
    batch=2,
    length=16,
    lengths=[16, 32],
    rounds=1,
    precision=Precision.float32,
    device=Device.cpu,
    threads=1,
    memory_limit_gib=8,
)


def own(name: str) -> Contender:
    return Contender(name, scheme=read_options(config_dir() / "scheme" / f"{name}.yaml"))


def rows_in(folder: Path) -> list[dict]:
    """The measurements of the contenders, in the order of the page's first table."""
    found = [{**record, **row} for record in read_records(folder) for row in record["measurements"]]
    places = list(dict.fromkeys((row["what"], row["length"]) for row in found))
    return sorted(found, key=lambda row: places.index((row["what"], row["length"])))


@pytest.fixture(scope="module")
def benched(tmp_path_factory) -> tuple[Path, Answer]:
    folder = tmp_path_factory.mktemp("bench")
    answer = here("bench", "learned", "--lengths", "16,32", *TINY, "rounds=1", "name=mine", cwd=folder)
    assert answer.code == 0, answer.err
    return folder / "results" / "bench" / "mine", answer


def test_a_row_for_each_contender_and_length(benched):
    folder, _ = benched
    rows = rows_in(folder)
    places = [("training", 16), ("evaluation", 16), ("evaluation", 32)]
    wanted = [(name, *place) for place in places for name in ("learned", "none")]
    assert [(row["contender"], row["what"], row["length"]) for row in rows] == wanted
    for row in rows:
        assert row["path"] == "sdpa causal" and row["parameters"] > 257 * 32
        figures = ("tokens_per_second", "ratio_to_none", "mfu", "matmul_flops", "flops_per_token", "peak_memory")
        if row["status"] == "ok":
            assert all(math.isfinite(row[figure]) and row[figure] >= 0 for figure in figures)
            assert len(row["speeds"]) == 1 and row["mfu_vendor"] is None
        else:
            assert not any(row[figure] for figure in figures)


def test_a_scheme_that_ends_is_undefined_past_its_end_and_none_is_its_own_measure(benched):
    rows = rows_in(benched[0])
    status = {(row["contender"], row["what"], row["length"]): row["status"] for row in rows}
    assert status.pop(("learned", "evaluation", 32)) == "undefined"
    assert set(status.values()) == {"ok"}
    assert {row["ratio_to_none"] for row in rows if row["contender"] == "none"} == {1.0}


def test_the_folder_says_how_it_came_about(benched):
    folder, answer = benched
    files = {"learned.cpu.json", "none.cpu.json", "bench.png", "bench.svg", "README.md"}
    assert {path.name for path in folder.iterdir()} == files
    note, page = json.loads((folder / "learned.cpu.json").read_text()), (folder / "README.md").read_text()
    assert note["threads"] == 1 and note["rounds"] == 1 and note["settings"]["precision"] == "float32"
    assert note["device"] == note["cpu"] and note["matmul"] and note["components"]["scheme"]["_target_"]
    assert "schemes=[learned]" in note["command"] and note["command"].startswith("posexp bench ")
    assert note["command"] in "".join(page.splitlines()[:3])
    assert "| learned | sdpa causal |" in page
    assert (folder / "bench.png").read_bytes()[:4] == b"\x89PNG"
    assert "Training at 16 tokens" in answer.out and "undefined" in answer.out and str(folder.name) in answer.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["roep"], "no scheme 'roep', did you mean 'rope'?"),
        (["rounds=0"], "rounds=0 must be at least 1"),
        (["lengths=[16,16]"], "evaluation length 16 must not be repeated"),
        (["clock=cpu"], "clock=cpu would also count threads that wait for each other: set threads=1"),
        (["mixer=lstm", "mixer.attention_every=9"], "mixer.attention_every=9 must be at most model.n_layer=6"),
        (["study=nowhere"], "no measured run in"),
        (["--against", "nowhere"], "nowhere is not a measurement that posexp bench has written: No such file"),
        (["memory_limit_gib=0"], "memory_limit_gib=0.0 must be above 0"),
        (["name=a/b"], "name='a/b' must be a plain folder name"),
        (["peers_path=nowhere"], "peers_path=nowhere has no model.py"),
        (["attention=fast"], "attention"),
    ],
)
def test_misuse_is_one_line_and_leaves_nothing_behind(tmp_path, words, says):
    assert says in here("bench", *words, cwd=tmp_path).refusal()
    assert not list(tmp_path.iterdir())


def test_peers_that_are_not_installed_are_named(tmp_path):
    if importlib.util.find_spec("x_transformers"):
        pytest.skip("x-transformers is installed")
    assert "--peers needs x-transformers" in here("bench", "--peers", cwd=tmp_path).refusal()


def test_each_scheme_is_measured_through_a_window_too(tmp_path):
    words = ["bench", "alibi", "window=sliding", "window.size=4", *TINY, "lengths=[32]", "rounds=1", "name=mine"]
    answer = here(*words, cwd=tmp_path)
    assert answer.code == 0, answer.err
    rows = rows_in(tmp_path / "results" / "bench" / "mine")
    names = ["none", "alibi", "none · window sliding 4", "alibi · window sliding 4"]
    assert {row["contender"] for row in rows if row["what"] == "training"} == set(names)
    assert {row["status"] for row in rows} == {"ok"}
    paths = {row["contender"]: row["path"] for row in rows}
    assert paths[names[0]] == "sdpa causal" and paths[names[2]] == "sdpa distance view"
    counted = {row["contender"]: row["flops_per_token"] for row in rows if row["what"] == "evaluation"}
    seen = (1 + 2 + 3 + 29 * 4) / 32  # keys of a query, on average
    assert counted[names[0]] - counted[names[2]] == pytest.approx(4 * 32 * (16 - seen))
    assert {row["ratio_to_none"] for row in rows if row["contender"] == "none"} == {1.0}


def test_a_mixer_and_schemes_that_read_text_are_measured_too_without_evaluation(tmp_path):
    words = ["bench", "abacus", "coupling", "mixer=lstm", *TINY, "lengths=[]", "rounds=1", "clock=cpu", "name=mine"]
    assert here(*words, cwd=tmp_path).code == 0
    rows = rows_in(tmp_path / "results" / "bench" / "mine")
    assert {(row["contender"], row["what"], row["status"]) for row in rows} == {
        (name, "training", "ok") for name in ("none", "abacus", "coupling", "none · Lstm")
    }
    counted = {row["contender"]: row["flops_per_token"] for row in rows}
    cells = 18  # 0.554 of 32: weights 4 h (d + h) + h d in place of 4 d², and no attention over 8 keys
    assert counted["none · Lstm"] - counted["none"] == 6 * (
        4 * cells * (32 + cells) + cells * 32 - 4 * 32 * 32 - 2 * 8 * 32
    )
    page = (tmp_path / "results" / "bench" / "mine" / "README.md").read_text()
    assert ", threads: 1, CPU time, float32" in page and "torch.nn.LSTM" in page


def test_against_a_baseline_that_was_faster_the_exit_code_is_1(benched, tmp_path):
    for path in benched[0].glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    path = tmp_path / "learned.cpu.json"
    record = json.loads(path.read_text())
    training = record["measurements"][0]
    training |= {"ratio_to_none": 1000.0, "ratio_error": 0.0, "memory_to_none": 1000.0}
    path.write_text(json.dumps(record))
    words = ["bench", "learned", "--against", str(path), *TINY, "lengths=[]", "rounds=1", "name=other"]
    answer = here(*words, cwd=tmp_path)
    assert "1 worse than" in answer.refusal(1) and "learned, training at 16: speed -9" in answer.err
    assert "Beside the baseline" in answer.out and "tokens/s" in answer.out
    other = here("bench", "learned", "--against", str(path), *TINY, "batch=3", "model.d_model=64", cwd=tmp_path)
    assert "model.d_model=32 (here 64); batch=2 (here 3)" in other.refusal()


def test_a_contender_that_fails_says_why_and_others_go_on(tmp_path):
    odd = [word for word in TINY if "n_head" not in word]
    words = ["bench", "rope", *odd, "model.n_head=32", "lengths=[16]", "rounds=1", "name=mine"]
    assert here(*words, cwd=tmp_path).code == 0
    rows = rows_in(tmp_path / "results" / "bench" / "mine")
    assert {row["status"] for row in rows if row["contender"] == "none"} == {"ok"}
    (said,) = {row["status"] for row in rows if row["contender"] == "rope"}
    assert "is odd" in said


def test_what_does_not_fit_is_out_of_memory_and_what_fits_goes_on():
    """Training holds more than a GB here; an evaluation of 16 tokens, and the matrices beside it, 50 MB."""
    command = replace(COMMAND, batch=256, length=1024, lengths=[16], memory_limit_gib=0.25)
    *_, (training, evaluation) = measure([own("none")], command)
    assert (training.status, training.seconds) == ("out of memory", {})
    assert evaluation.status == "ok" and len(evaluation.seconds) == 1


def test_memory_is_what_is_in_use_and_the_same_in_each_process():
    """With what glibc keeps free between blocks, these three differed by a factor of two."""
    command = replace(COMMAND, model=ModelConfig(d_model=128, n_layer=4, n_head=4), vocab_size=4096)
    found = []
    for _ in range(3):
        with workers([own("none")], command, training=False, rehearse=True) as ((worker, _),):
            worker.send(memory=True, length=4096)
            found.append(worker.receive()["peak_memory"])
    assert 2**23 < max(found) < 1.02 * min(found), found


def test_a_process_that_dies_says_how_and_others_go_on(tmp_path):
    (tmp_path / "model.py").write_text("import os\nprint('noise')\nos.kill(os.getpid(), 9)\n")
    contenders = [own("none"), Contender("nanoGPT", checkout=str(tmp_path))]
    *_, found = measure(contenders, replace(COMMAND, lengths=[16]))
    assert [row.status for row in found] == ["ok", "killed by SIGKILL"] * 2


def test_operations_of_a_token_counted_by_hand():
    model = build_decoder(
        ModelConfig(d_model=32, n_layer=2, n_head=2, mlp=Mlp.gelu), 100, own("none").scheme or {}, 16, seed=0
    )
    weights = matmul_parameters(model, model.embedding.weight)
    assert weights == 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128) + 100 * 32  # qkv, out, up and down; the tied output layer
    forward = 2 * weights + 2 * 2 * 16 * 32  # two layers; half of 16 keys, twice 2 * 32 operations with each
    assert flops_per_token(weights, 2, 32, 8, training=False) == forward
    assert flops_per_token(weights, 2, 32, 8, training=True) == 3 * forward


@pytest.mark.parametrize("mlp", list(Mlp))
def test_operations_are_those_that_pytorch_counts(mlp):
    """Its counter takes all pairs of tokens for attention, of which the causal half is ours."""
    config, T = ModelConfig(d_model=32, n_layer=3, n_head=2, mlp=mlp), 24
    model = build_decoder(config, 100, own("none").scheme or {}, T, seed=0)
    model.path = AttentionPath.dense  # its counter does not know the fused kernel of a CPU
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.logits(model(torch.randint(100, (1, T))))
    pairs = 4 * config.n_layer * T * T * config.d_model
    weights = matmul_parameters(model, model.embedding.weight)
    assert flops_per_token(weights, 3, 32, T / 2, training=False) * T == counter.get_total_flops() - pairs // 2


def test_ratios_are_of_the_same_round():
    def row(contender: Contender, seconds: dict[int, float], tokens: int = 10) -> Measured:
        peaks = [1000.0] * len(seconds)
        return Measured(contender, "training", 16, "ok", {}, tokens, 6, seconds, peaks, 0)

    found = [
        row(own("none"), {1: 1.0, 2: 10.0, 3: 2.0}),
        row(own("rope"), {1: 2.0, 2: 20.0, 3: 4.0}),
        row(Contender("slow peer"), {1: 8.0, 2: 80.0, 3: 16.0}),
        row(Contender("none"), {1: 4.0, 2: 40.0, 3: 8.0}),  # a peer of that name
    ]
    rows = rows_of(found, "none")
    assert [row["ratio_to_none"] for row in rows] == [1, 0.5, 0.125, 0.25]
    assert [row["ratio_to_fastest_peer"] for row in rows] == [4, 2, 0.5, 1]
    assert rows[0]["tokens_per_second"] == 5 and rows[0]["mfu"] == 6 * 10 / 2 / 1000
    (five,) = rows_of([row(own("none"), {n: 10 / n for n in range(1, 6)})], "none")
    assert [five[name] for name in ("lower_quartile", "tokens_per_second", "upper_quartile")] == [2, 3, 4]


def has_x_transformers() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        try:
            importlib.import_module("x_transformers")
        except ImportError:
            return False
    return True


def test_every_peer_trains_and_reads_at_posexps_sizes():
    pytest.importorskip("transformers")
    from posexp.bench import peers

    there = [name for name in peers.LIBRARIES if name.startswith("transformers") or has_x_transformers()]
    ids = torch.randint(257, (2, 17))
    for name in there:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject = peers.build_peer(Contender(name), COMMAND, torch.device("cpu"))
            loss = subject.loss(ids[:, :-1], ids[:, 1:])
            loss.backward()
            subject.read(torch.randint(257, (33,)))
        assert 4 < loss.item() < 8, name
        assert subject.head.shape == (257, 32)
        inside = matmul_parameters(subject.model, subject.head) - 257 * 32
        assert inside == pytest.approx(12 * 32 * 32, rel=0.1), name  # a narrow SwiGLU comes out 8 % wider


def test_a_peer_is_measured_beside_posexp():
    if not has_x_transformers():
        pytest.skip("no x-transformers here")
    *_, found = measure([own("none"), Contender("x-transformers rotary")], replace(COMMAND, lengths=[16]))
    rows = rows_of(found, "none")
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert [row["kind"] for row in rows] == ["posexp", "peer"] * 2
    assert rows[1]["ratio_to_fastest_peer"] == 1 and rows[1]["path"] == "flash"


LIKE_NANOGPT = '''
from dataclasses import dataclass
from torch import nn
import torch.nn.functional as F

@dataclass
class GPTConfig:
    block_size: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True

class GPT(nn.Module):
    """No attention; of all tokens it gives logits only beside targets."""

    def __init__(self, config):
        super().__init__()
        assert not config.bias and config.block_size == 32
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(self, ids, targets=None):
        logits = self.lm_head(self.embedding(ids))
        assert targets is not None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())
'''


def test_a_checkout_with_nanogpts_names_is_read_through_them(tmp_path):
    from posexp.bench import peers

    (tmp_path / "model.py").write_text(LIKE_NANOGPT)
    subject = peers.build_peer(Contender("nanoGPT", checkout=str(tmp_path)), COMMAND, torch.device("cpu"))
    ids = torch.randint(257, (2, 17))
    assert subject.loss(ids[:, :-1], ids[:, 1:]).item() > 1
    subject.read(ids[0])
    assert matmul_parameters(subject.model, subject.head) == 257 * 32
