"""A runner for other programs. Their output is untrusted: it may hold names and comments of other users."""

import os
import subprocess

# Variables that change the output: SQUEUE_STATES, set for a user's terminal, hides jobs, and a git hook sets GIT_DIR.
TASTE = ("SQUEUE_", "SLURM_TIME_FORMAT", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


def ask(*words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program and return its output; bytes that are not UTF-8 become �.

    Raises OSError if the program cannot be started, subprocess.TimeoutExpired if it takes longer than `seconds`.
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
