"""scripts/study: what can be done of a study within a time limit, resumed, and packed."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TINY = ["model.d_model=32", "model.n_layer=1", "model.n_head=2", "train.length=32", "train.batch_tokens=256"]
TINY += ["eval.lengths=[32,64]", "eval.targets=64", "data.tokenizer=bytes"]


def study(folder: Path, *words: str, results: str = "results") -> subprocess.CompletedProcess[str]:
    places = [f"results={results}", "group=g", "data.cache=cache"]
    environment = {**os.environ, "OUT": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / "study"), *words, *(places if len(words) > 2 else [])]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_after_the_minutes_every_process_saves_and_stops(tmp_path: Path):
    ended = study(tmp_path, "demo", "0.4", "processes=2", "+scheme=none,alibi", "train.tokens=100_000_000", *TINY)
    assert ended.returncode == 0 and "exit codes [143, 143]" in ended.stderr, ended.stdout + ended.stderr
    assert "interrupted" not in ended.stdout


def test_two_processes_share_a_study_and_where_it_is_unpacked_nothing_is_done_again(tmp_path: Path):
    words = ["demo", "4", "processes=2", "+scheme=none,alibi", "train.tokens=20_000", *TINY]
    done = study(tmp_path, *words)
    assert len(re.findall(r"^(?:alibi|none)-\S+ +done ", done.stdout, re.MULTILINE)) == 2, done.stdout + done.stderr
    whole = tmp_path / "whole"
    whole.write_bytes(b"".join(part.read_bytes() for part in sorted(tmp_path.glob("g.tar.xz.*"))))
    with tarfile.open(whole) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "elsewhere", filter="data")
    assert sum(name.endswith("rows.jsonl") for name in names) == 2 and "g/report/rows.csv" in names
    assert not any("checkpoint" in name for name in names)
    again = study(tmp_path, *words, results="elsewhere")
    assert "2 done, 0 to do" in again.stderr and "training from step" not in again.stderr


def test_a_study_that_is_not_there_is_refused_in_a_line(tmp_path: Path):
    for words in (["nosuch", "1"], ["demo", "soon"], ["demo"]):
        refused = study(tmp_path, *words)
        assert refused.returncode == 2 and refused.stderr.startswith("scripts/study <experiment> <minutes>")
        assert "Traceback" not in refused.stderr
