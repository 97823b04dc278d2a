"""The provenance of a result: version, commit, packages, machine and command."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posexp import __version__
from posexp.config.overrides import NO_SCHEME
from posexp.jobs.programs import ask

PACKAGES = ("torch", "numpy", "datasets", "tokenizers", "hydra-core", "safetensors")


def environment() -> dict[str, Any]:
    """Return the version and commit of posexp, packages, platform and command."""
    from hydra.core.hydra_config import HydraConfig

    commit, dirty = revision()
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    typed = [re.sub("^parent=", "from=", word) for word in words if word != NO_SCHEME]
    return {
        "version": __version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "command": " ".join(["posexp train", *typed]) if HydraConfig.initialized() else None,
    }


def revision() -> tuple[str | None, bool | None]:
    """Return (commit, whether files differ from it) of the checkout that posexp runs from, (None, None) without one."""
    checkout = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str | None:
        try:
            done = ask("git", "-C", str(checkout), *words, seconds=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "posexp/runs/run.py") is None:  # some other project's repository
        return None, None
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
