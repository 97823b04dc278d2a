"""Every mistake ends in one clear line, and in nothing else."""

import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from support.command import TINY, Answer, files_of, here, posexp, run_of, world, write_texts

from posexp.config.sections import DataConfig, Source
from posexp.data.load import load_store

EVAL = ["eval", "--lengths", "8,16,64", "wandb.mode=disabled"]


@pytest.fixture
def finished(tmp_path_factory, tmp_path) -> Path:
    return world(tmp_path_factory, tmp_path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A folder with text and a token store, shared by tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("corpus")
    write_texts(folder / "text")
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 100)
    (folder / "short.txt").write_text("a b c d e")
    (folder / "array.txt").write_text("[1]")
    (folder / "rows.jsonl").write_text('{"body": "text of another field"}\n')
    (folder / "nothing").mkdir()
    return folder


def train(*words: str, cwd: Path) -> Answer:
    scheme = [] if any(word.startswith("scheme=") and word != "scheme=null" for word in words) else ["+scheme=rope"]
    return here("train", *scheme, *TINY, *words, cwd=cwd)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def cut(path: Path, share: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["scheme=rpoe"], "no scheme 'rpoe', did you mean 'rope'?; there are abacus, alibi, alternate"),
        (["scheme=null"], "scheme=null chooses nothing"),
        (["scheme=rope", "scheme=alibi"], "scheme is chosen twice"),
        (["model=huge"], "no model 'huge'; there are base, base_h128, bench, small, small_h128, tiny"),
        (["data=wikitext"], "no data 'wikitext', did you mean 'wikitext103'?"),
        (["model.n_layr=2"], "no key 'model.n_layr', did you mean 'model.n_layer'?"),
        (["+model.n_layr=2"], "no key 'model.n_layr', did you mean 'model.n_layer'?"),
        (["sead=1"], "no key 'sead', did you mean 'seed'?"),
        (["+sead=1"], "no key 'sead', did you mean 'seed'?"),
        (["scheme.bass=3"], "no key 'scheme.bass'"),
        (["+scheme.bass=3"], "bass"),
        (["model.n_layer=two"], "model.n_layer: Value 'two' of type 'str' could not be converted to Integer"),
        (["model.n_layer=0"], "model.n_layer=0 must be at least 1"),
        (["seed=-1"], "seed=-1 must be at least 0"),
        (["train.lr=high"], "train.lr: Value 'high'"),
        (["train.lr=nan"], "train.lr=nan must be at least 0"),
        (["model.mlp=relu"], "model.mlp: Invalid value 'relu', expected one of [swiglu, gelu]"),
        (["scheme.base=many"], "'many' of type 'str' could not be converted to Float"),
        (["scheme.fraction=0"], "scheme.fraction=0.0 must be above 0"),
        (["device=tpu"], "expected one of [auto, cpu, cuda]"),
        (["label=a/b"], "label='a/b' must be a plain folder name"),
        (["group=.."], "group='..' must be a plain folder name"),
        (["seed"], "'seed' is not key=value"),
        (["label=a(b"], "'label=a(b' is not key=value; special characters need quotes"),
        (["--lengths", "0"], "evaluation length 0 must be at least 1"),
        (["--lengths", "16,-5"], "evaluation length -5 must be at least 1"),
        (["--lengths", "16,many"], "--lengths takes whole numbers, as in --lengths 512,2048,8192, got '16,many'"),
        (["--lengths", ""], "--lengths takes whole numbers"),
        (["--lengths", "1.5"], "--lengths takes whole numbers"),
        (["--lengths"], "--lengths needs a value"),
        (["--lengths", "16,32,16"], "evaluation length 16 must not be repeated"),
        (["eval.lengths=[]"], "eval.lengths is empty"),
        (["eval.protocols=[perplexity]"], "unknown protocol 'perplexity'; choose from same_targets"),
        (["eval.protocols=[]"], "eval.protocols must name at least one"),
        (["model.d_model=30"], "15 of a head's 15"),
        (["model.n_head=3"], "model.d_model=32 must be divisible by model.n_head=3"),
        (["train.batch_tokens=100"], "train.batch_tokens=100 must be a multiple of train.length=16"),
        (["train.accumulate=3"], "train.accumulate=3 must divide the 16 sequences"),
        (["data.document_start='('"], "is not a regular expression"),
        (["data.paths=null"], "data=files needs data.paths"),
        (["data.paths=gone"], "data.paths: there is no file gone"),
        (["data.paths=gone/*.txt"], "data.paths: no file matches gone/*.txt"),
        (["data.paths=nothing"], "the folder nothing holds no file"),
        (["data.paths=empty.txt"], "empty.txt is an empty file"),
        (["data.paths=latin.txt"], "latin.txt is not UTF-8: byte 0xe9 at 3"),
        (
            ["data.paths=short.txt", "data.tokenizer=bytes"],
            "shorter than one sequence of 16 tokens and the token after it: take",
        ),
        (
            ["mixer=lstm", "temperature=llama4"],
            "temperature acts in attention, which this mixer replaces in every block",
        ),
        (["data=copy", "data.paths=null", "data.task_size=1048576"], "is more than 10,000,000,000: lower one of them"),
        (["window=sliding", "window.sizes=3"], "no key 'window.sizes', did you mean 'window.size'?"),
        (["data.paths=rows.jsonl"], "rows.jsonl: row 1 has no field 'text'; its fields: body"),
        (["data.tokenizer=array.txt"], "array.txt"),
        (["--lengths", "16,100000"], "no document is long enough for evaluation length 100000: the longest possible"),
        (["scheme=binary", "scheme.bits=3"], "Binary(bits=3) ends at 8 tokens: train.length=16 is longer"),
        (["scheme=fox", "window=lambda"], "changes distances, and ForgetGate reads content instead"),
        (["scheme=randomized", "scheme@scheme.inner=nothing"], "no scheme 'nothing'; there are abacus"),
        (["scheme=alternate", "scheme@scheme.inner=sinusoidal"], "acts on the embeddings, which all blocks share"),
        (["scheme=dape", "scheme@scheme.inner=rope"], "adds no bias that DAPE could adapt"),
        (["scheme.layout=round"], "layout: Invalid value 'round', expected one of [half, interleaved]"),
        (["window=slide"], "no window 'slide', did you mean 'sliding'?; there are alternate, bca, chunked, full"),
        (["window.size=4"], "window.size: no window is chosen (the attention window"),
        (["window=sliding", "window.size=0"], "window.size=0 must be at least 1"),
        (["transform=yarn"], "transforms change a trained run: name it by from=<run>, or posexp eval"),
        (["results=empty.txt"], "cannot write to empty.txt/default/rope-s0-"),
        (["data.cache=empty.txt"], "choose another folder with data.cache"),
        ([f"results={'long/' * 800}"], "which must be at most 3,496 because of the files below it"),
        ([f"data.cache={'long/' * 800}"], "data.cache makes a path of 4,"),
        ([f"results=a/{'x' * 256}"], "must be at most 255 bytes"),
        (["-m", "seed=0,1", f"results={'long/' * 800}"], "results makes a path of 4,"),
        (["scheme=sinusoidal", "scheme.base=0"], "scheme.base=0.0 must be above 0"),
        (["scheme=xpos", "scheme.scale_base=0"], "scheme.scale_base=0.0 must be above 0"),
        (["scheme=xpos", "scheme.gamma=-1"], "scheme.gamma=-1 must be at least 0"),
        (["train.clip=-1"], "train.clip=-1.0 must be at least 0"),
        (["train.clip=null"], "train.clip: "),
        (["train.accumulate=0"], "train.accumulate=0 must be at least 1"),
        (["train.checkpoint_every=0"], "train.checkpoint_every=0 must be at least 1"),
        (["eval.targets=0"], "eval.targets=0 must be at least 1; null: no bound"),
        (["eval.targets=-1"], "eval.targets=-1 must be at least 1; null: no bound"),
        (["trainer.devices=-1"], "trainer.devices=-1 must be at least 1"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_before_a_run_folder_is_made(corpus, words, says):
    assert says in train(*words, cwd=corpus).refusal()
    assert not (corpus / "results").exists() and (corpus / "empty.txt").stat().st_size == 0


def test_a_sweep_without_a_scheme_is_refused_in_a_plain_line(corpus):
    assert "error: cell: choose a scheme with +scheme=<name>" in here("train", "-m", cwd=corpus).refusal()


@pytest.mark.slow
def test_a_wrong_configuration_is_refused_by_a_fresh_process_too(corpus):
    answer = posexp("train", "+scheme=rope", *TINY, "model.d_model=30", cwd=corpus)
    assert "is odd" in answer.refusal() and answer.out == "" and len(answer.err.splitlines()) == 1


@pytest.mark.slow
def test_a_length_beyond_every_document_names_the_longest_possible(finished):
    before = files_of(finished / "results")
    refused = here("eval", "--lengths", "16,100000", "wandb.mode=disabled", cwd=finished).refusal()
    longest = int(refused.rpartition(" ")[2])
    assert "no document is long enough for evaluation length 100000" in refused
    assert files_of(finished / "results") == before
    for length, code in ((longest, 0), (longest + 1, 2)):
        words = ["eval", "--lengths", f"16,{length}", "eval.protocols=[same_targets]", "wandb.mode=disabled"]
        assert here(*words, cwd=finished).code == code


def test_a_stride_longer_than_the_shortest_length_is_refused(finished):
    words = (*EVAL, "eval.protocols=[sliding]")
    for stride, chosen in ((9, ["eval.stride=9"]), (32, [])):
        refused = here(*words, *chosen, cwd=finished).refusal()
        assert f"eval.stride={stride} is longer than the shortest length, 8: choose a shorter stride" in refused


def test_a_run_of_posexp_knows_its_training_length(finished):
    refused = here(*EVAL, "train_length=32", cwd=finished).refusal()
    assert "train_length=32 needs hf=…: runs of posexp store their training length" in refused


def test_there_must_be_a_finished_run_to_evaluate(finished):
    refused = here(*EVAL, "--runs", "xpos*", cwd=finished).refusal()
    assert "no finished run in results/default/xpos*" in refused and "posexp train" in refused
    for label in ("rope", "learned"):
        (run_of(finished, label) / "metrics.jsonl").unlink()
    assert "2 unfinished: repeat their train command" in here(*EVAL, cwd=finished).refusal()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "altered", "gone", "json"])
def test_a_damaged_checkpoint_is_named_others_are_measured_and_training_repairs_it(finished, damage):
    run = run_of(finished)
    final = run / "checkpoint" / "step-00000008.safetensors"
    whole = final.read_bytes()
    if damage == "cut":
        cut(final)
    elif damage == "altered":
        final.write_bytes(whole[:-100] + bytes(100))
    elif damage == "gone":
        final.unlink()
    else:
        cut(final.with_suffix(".json"))
    answer = here("eval", "--lengths", "32", "wandb.mode=disabled", cwd=finished)
    assert answer.refusal(code=1) == "posexp: error: 1 of 2 runs could not be evaluated (see above)"
    assert f"{run.name}: its final checkpoint is damaged or missing; repeat its train command" in answer.err
    assert damage == "gone" or f"checkpoint results/default/{run.name}/checkpoint/{final.name} is dam" in answer.err
    assert 32 in {row["length"] for row in rows_of(run_of(finished, "learned"))}
    again = train("--lengths", "8,16,64", cwd=finished)
    assert again.code == 0 and "training from step 4 to 8" in again.err
    assert final.read_bytes() == whole and "all 8, 16, 64 measured already" in again.err


def test_a_checkpoint_of_another_model_is_refused(finished):
    path = run_of(finished) / "config.yaml"
    altered = path.read_text().replace("n_layer: 1", "n_layer: 2")
    path.write_text(altered)
    assert "checkpoint does not fit the model" in here(*EVAL, "--runs", "rope*", cwd=finished).refusal(code=1)
    assert "holds a run of another configuration" in train(cwd=finished).refusal()


def test_a_damaged_token_store_is_named_and_built_again(finished):
    (store,) = (finished / "cache" / "tokens").glob("*/store.json")
    ids = store.with_name("valid.bin")
    whole = np.fromfile(ids, np.uint16)
    cut(ids)
    answer = here("eval", "--lengths", "16,32", "wandb.mode=disabled", cwd=finished)
    assert answer.code == 0 and f"{store.parent.name} is damaged (valid.bin has" in answer.err
    assert (np.fromfile(ids, np.uint16) == whole).all()


@pytest.mark.slow
def test_a_run_is_measured_on_the_tokens_it_was_trained_on_or_not_at_all(finished):
    (finished / "text" / "00.txt").write_text("something else " * 300)
    kept = finished / "cache" / "tokens" / json.loads((run_of(finished) / "provenance.json").read_text())["store"]
    before = (run_of(finished) / "rows.jsonl").read_bytes()
    assert here(*EVAL, "--runs", "rope*", cwd=finished).code == 0
    assert (run_of(finished) / "rows.jsonl").read_bytes() == before, "the same targets, measured already"
    kept.rename(finished / "elsewhere")
    refused = here(*EVAL, "--runs", "rope*", cwd=finished).refusal()
    assert f"{run_of(finished).name}: no token store cache/tokens/{kept.name}, and the local text gives" in refused
    other = load_store(DataConfig(Source.files, str(finished / "text"), vocab_size=300, cache=str(finished / "cache")))
    other.folder.rename(kept)
    refused = here(*EVAL, "--runs", "rope*", cwd=finished).refusal(code=1)
    assert "was trained on other tokens than those in cache/tokens/" in refused


@pytest.mark.slow
def test_damaged_rows_are_named_and_measured_again(finished):
    run = run_of(finished)
    whole = (run / "rows.jsonl").read_bytes().splitlines(keepends=True)
    damaged = [whole[0], b"\xff\x00 {not a row}\n", *whole[2:-1], whole[-1][:40]]
    (run / "rows.jsonl").write_bytes(b"".join(damaged))
    says = f"results/default/{run.name}/rows.jsonl: line 2, {len(whole)} cannot be read"
    for command in (["runs"], ["report"]):
        answer = here(*command, cwd=finished)
        assert answer.code == 0 and says in answer.err, answer.err
    answer = here(*EVAL, cwd=finished)
    assert answer.code == 0 and says in answer.err, answer.err
    lines = (run / "rows.jsonl").read_bytes().splitlines(keepends=True)
    assert b"".join(lines[: len(whole)]) == b"".join(damaged) + b"\n", "what was there is there"
    fresh, lost = [json.loads(line) for line in lines[len(whole) :]], [json.loads(whole[1]), json.loads(whole[-1])]
    assert sorted(row["nll"] for row in fresh) == pytest.approx(sorted(row["nll"] for row in lost), abs=1e-6)


def test_verify_names_every_changed_file_once(finished):
    assert "2 runs and 1 token stores: all checksums are right" in here("runs", "--verify", cwd=finished).err
    (ids,) = finished.glob("cache/tokens/*/train.bin")
    weights = sorted(run_of(finished).glob("checkpoint/*.safetensors"))[-1]
    for path in (ids, weights):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    answer = here("runs", "--verify", cwd=finished)
    assert answer.refusal(1) == "posexp: error: 2 problems in 2 runs (see above)"
    assert f"token store cache/tokens/{ids.parent.name}: train.bin has been changed" in answer.err
    assert f"{weights.name} has been changed: its sha256 differs" in answer.err and len(answer.err.splitlines()) == 3


def test_damaged_metrics_are_named(finished):
    run = run_of(finished)
    whole = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*whole, '{"step": 8, "status": "torn']) + "\n")
    answer = here("runs", cwd=finished)
    assert answer.code == 0 and f"{run.name}/metrics.jsonl: 1 lines cannot be read" in answer.err
    answer = here("runs", "--verify", cwd=finished)
    assert f"{run.name}/metrics.jsonl: line {len(whole) + 1} cannot be read" in answer.err
    assert answer.refusal(1) == "posexp: error: 1 problems in 2 runs (see above)"
    assert here(*EVAL, cwd=finished).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 0.9])
def test_a_damaged_config_is_named_and_the_other_runs_are_measured(finished, share):
    path = run_of(finished) / "config.yaml"
    cut(path, share)
    answer = here("eval", "--lengths", "32", "wandb.mode=disabled", cwd=finished)
    assert answer.refusal(code=1) == "posexp: error: 1 of 2 runs could not be evaluated (see above)"
    assert f"results/default/{path.parent.name}/config.yaml" in answer.err
    assert 32 in {row["length"] for row in rows_of(run_of(finished, "learned"))}
    assert "config.yaml" in train(cwd=finished).refusal(code=1)
    table = here("runs", cwd=finished)
    assert table.code == 0 and "damaged" in table.out and "config.yaml" in table.err


@pytest.mark.slow
@pytest.mark.parametrize("content", ['{"commit": "ab', "[]", "\x00"])
def test_damaged_provenance_is_named_with_its_remedy(finished, content):
    path = run_of(finished) / "provenance.json"
    path.write_text(content)
    for answer in (here(*EVAL, "--runs", "rope*", cwd=finished), train(cwd=finished)):
        refused = answer.refusal(code=1)
        assert f"{path.parent.name}/provenance.json cannot be read" in refused and "remove it" in refused
    path.unlink()
    assert train("--lengths", "16", cwd=finished).code == 0 and "store" in json.loads(path.read_text())


@pytest.mark.slow
def test_results_that_cannot_be_written_are_named(finished):
    for label in ("rope", "learned"):
        (run_of(finished, label) / "rows.jsonl").unlink()
    (run_of(finished) / "rows.jsonl").mkdir()
    answer = here(*EVAL, cwd=finished)
    assert answer.refusal(code=1).endswith("1 of 2 runs could not be evaluated (see above)")
    assert f"{run_of(finished).name}/rows.jsonl: Is a directory" in answer.err
    assert len([row for row in rows_of(run_of(finished, "learned")) if not row["control"]]) == 8
    (finished / "results" / "default" / "report").touch()
    assert "cannot write the report into results/default/report" in here("report", cwd=finished).refusal(code=1)


@pytest.mark.slow
def test_of_two_processes_on_a_run_the_second_says_who_holds_it(finished):
    run = run_of(finished)
    before = files_of(run / "checkpoint")
    with FileLock(run / ".lock"):
        holder = {"pid": os.getpid(), "host": platform.node(), "since": "2026-01-01 00:00:00"}
        (run / "holder.json").write_text(json.dumps(holder))
        refused = posexp("train", "+scheme=rope", *TINY, cwd=finished).refusal(code=1)
    assert f"is being worked on by process {os.getpid()} on {platform.node()}, since 2026-01-01" in refused
    assert files_of(run / "checkpoint") == before
    assert train("--lengths", "16", cwd=finished).code == 0


def test_a_key_of_other_text_without_other_text_is_refused(corpus):
    refused = here("eval", "data.cache=cache", cwd=corpus).refusal()
    assert "data.cache: no data is chosen" in refused and "data=files" in refused
