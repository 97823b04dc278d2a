"""A disk that fills up in the middle of any write: one line says so, and with room again the same command goes on."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import SMALL, assert_same_rows, dice, losses_of, only, start, tally, times, weights_of, write_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a file system takes root"),
]
TRAIN = ["train", "+scheme=rope", *SMALL, "train.tokens=5120"]
EVAL = ["eval", "wandb.mode=disabled", "device=cpu", "--lengths", "8,16,32"]
# What a write that fails belongs to, by the file that the line names; every other is a mistake of the test.
KINDS = {
    r"cannot write to \S+/rope-\w+-\w+:": "config or lock",
    r"cannot write the token store": "token store",
    r"cannot save \S+\.safetensors": "checkpoint",
    r"No space left on device: \S+/metrics\.jsonl": "metrics",
    r"No space left on device: \S+/train\.log": "log",
    r"No space left on device: \S+/job\.json": "where it is worked on",
    r"No space left on device: \S+/provenance\.json": "provenance",
    r"No space left on device: \S+/tokenizer\.json": "tokenizer",
    r"No space left on device: \S+/rows\.jsonl|cannot write or read \S+/rows\.jsonl": "rows",
    r"No space left on device: \S+/losses\S*|cannot write or read \S+/losses\S*": "losses",
    r"cannot write the report into|No space left on device: \S+/report": "report",
}
PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB, which counts in pages."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", mount], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def fill(disk: Path, pages: int) -> None:
    """Leaves so many pages free."""
    (disk / "filler").write_bytes(b"x" * (free_pages(disk) - pages) * PAGE)


def free_pages(disk: Path) -> int:
    return shutil.disk_usage(disk).free // PAGE


def kind_of(line: str) -> str:
    assert line.startswith("posexp: error:")
    (kind,) = {kind for pattern, kind in KINDS.items() if re.search(pattern, line)} or {line}
    return kind


def test_a_disk_that_fills_up_ends_a_command_in_one_line_and_with_room_it_goes_on(tmp_path, disk):
    write_text(tmp_path / "text")
    start(*TRAIN, "results=calm", "data.cache=calm-cache", cwd=tmp_path).ended_well()
    start("report", "results=calm", cwd=tmp_path).ended_well()
    calm = only(tmp_path / "calm")
    report = {path.name for path in (calm.parent / "report").iterdir()}
    commands = {
        "small files": [*TRAIN, f"results={disk}/small", "data.cache=calm-cache"],
        "train": [*TRAIN, f"results={disk}/results", f"data.cache={disk}/cache"],
        "eval": [*EVAL, f"results={disk}/results"],
        "report": ["report", f"results={disk}/results"],
    }
    draw, found = dice(), Counter[str]()
    count = times(1, 2)
    for _ in range(count):
        for path in disk.iterdir():
            shutil.rmtree(path)
        for name, words in commands.items():
            if name == "eval":  # as if only training had been done
                shutil.rmtree(only(disk / "results") / "losses")
                (only(disk / "results") / "rows.jsonl").unlink()
            pages = 0
            while True:
                fill(disk, pages)
                command = start(*words, cwd=tmp_path)
                if command.wait() == 0:
                    break
                found[kind_of(command.complaint())] += 1
                (disk / "filler").unlink()
                assert not list(disk.glob("results/*/*/checkpoint/*.tmp"))
                wide = name != "small files" or pages > times(6, 16)
                pages += draw.choice(times([60, 90], [2, 3, 5])) if wide else 1  # what was written before stays
            (disk / "filler").unlink()
            start(*words, cwd=tmp_path).ended_well()
        for run in (only(disk / "small"), only(disk / "results")):
            assert weights_of(run) == weights_of(calm)
            assert losses_of(run) == losses_of(calm)
            assert_same_rows(run, calm)
        assert {path.name for path in (run.parent / "report").iterdir()} == report
    kinds = ", ".join(f"{kind} {times_}" for kind, times_ in found.most_common())
    assert set(found) <= set(KINDS.values())
    tally(
        "disk full (a tmpfs of a few pages)",
        found.total(),
        f"what did not fit; with room the command resumes to equal bits. Hit: {kinds}",
    )
