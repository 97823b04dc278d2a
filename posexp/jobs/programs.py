"""Other programs, and what they print: it is theirs to choose, and may hold names and notes of anybody's."""

import os
import subprocess

# What changes the answers: SQUEUE_STATES, set for a person's terminal, leaves jobs out, and a git hook sets GIT_DIR.
TASTE = ("SQUEUE_", "SLURM_TIME_FORMAT", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


def ask(*words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs a program and gives what it printed; bytes that are no UTF-8 become �.

    Raises OSError if it cannot be started, subprocess.TimeoutExpired if it takes longer than `seconds`.
    """
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        env={name: value for name, value in os.environ.items() if not name.startswith(TASTE)},
    )
