"""Files that are whole or absent: what killed writers leave goes, what living ones write stays."""

import os
import signal
import subprocess
import sys
import time

from posexp.storage import atomic

DIES = """
import os, signal, sys
from pathlib import Path
from posexp.storage import atomic
atomic.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
atomic.write_file(Path(sys.argv[1]), "new")
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", DIES, path]).returncode == -signal.SIGKILL
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    atomic.write_file(path, "newer")
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "newer"


def test_what_somebody_writes_is_left_alone(tmp_path, monkeypatch):
    """Here while its process runs; elsewhere until it is a day old."""
    path = tmp_path / "rows.jsonl"
    others = [f".rows.jsonl.{atomic.MACHINE}.1", ".rows.jsonl.0123456789.4242", ".rows.jsonl.4242", ".bashrc"]
    for name in others:
        (tmp_path / name).write_text("")
    (tmp_path / f".rows.jsonl.{atomic.MACHINE}.4242").symlink_to(tmp_path / ".bashrc")
    link = tmp_path / f".rows.jsonl.{atomic.MACHINE}.4242"
    atomic.write_file(path, "x")
    atomic.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*(tmp_path / name for name in others), link, path])
    for name in others:
        os.utime(tmp_path / name, (time.time() - 90_000,) * 2)
    atomic.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / ".bashrc", link, path])


def test_a_writer_takes_no_link_in_the_place_of_its_temporary_file(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / f".a.json.{atomic.MACHINE}.{os.getpid()}").symlink_to(tmp_path / "victim")
    atomic.write_file(tmp_path / "a.json", "content")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "a.json").read_text() == "content"
