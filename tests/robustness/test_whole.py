"""Files that are whole or absent: what killed writers leave goes, what living ones write stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
    (tmp_path / ".metrics.jsonl.4242").write_text("of an earlier posexp")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 3
    atomic.write_file(path, "newer")
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "newer"


def test_what_somebody_writes_is_left_alone(tmp_path, monkeypatch):
    """Here by its lock; elsewhere until it is a day old; without locks likewise."""
    path = tmp_path / "rows.jsonl"
    (tmp_path / ".bashrc").write_text("")
    mine, file = atomic.begin(path)
    monkeypatch.setattr(atomic, "MACHINE", "0123456789")
    elsewhere, other = atomic.begin(path)
    other.close()
    monkeypatch.undo()
    atomic.write_file(path, "x")
    atomic.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / ".bashrc", mine, elsewhere, path])
    file.close()
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "lock", lambda handle: None)
        atomic.write_file(path, "without locks")
        assert mine.exists()
    os.utime(elsewhere, (time.time() - 90_000,) * 2)
    atomic.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / ".bashrc", path])


def test_a_file_that_was_taken_for_a_leftover_before_it_was_locked_is_begun_again(tmp_path, monkeypatch):
    path, lock, calls = tmp_path / "a.json", atomic.lock, []

    def slow(handle: int) -> bool | None:
        calls.append(handle)
        if len(calls) == 1:
            whole_remove(tmp_path)
        return lock(handle)

    def whole_remove(folder: Path) -> None:
        for aside in folder.glob(".a.json.*"):
            aside.unlink()

    monkeypatch.setattr(atomic, "lock", slow)
    atomic.write_file(path, "content")
    assert path.read_text() == "content" and len(calls) == 2 and list(tmp_path.iterdir()) == [path]
