"""The provenance of a result: commit, packages, machine and command."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posexp.jobs.programs import ask

PACKAGES = ("posexp", "torch", "numpy", "datasets", "tokenizers", "hydra-core", "safetensors")


def environment() -> dict[str, Any]:
    """Return the code version, packages, platform and command."""
    from hydra.core.hydra_config import HydraConfig

    checkout = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str | None:
        try:
            done = ask("git", "-C", str(checkout), *words, seconds=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    inside = (
        git("ls-files", "--error-unmatch", "posexp/runs/run.py") is not None
    )  # else: some other project's repository
    return {
        "commit": git("rev-parse", "HEAD") if inside else None,
        "dirty": bool(git("status", "--porcelain")) if inside else None,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "command": " ".join(["posexp train", *HydraConfig.get().overrides.task]) if HydraConfig.initialized() else None,
    }
