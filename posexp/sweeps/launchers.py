"""The launchers of configs/hydra/launcher/, each of which an extra of posexp installs."""

import os
import shutil
from typing import TYPE_CHECKING

from posexp.config.explain import EXTRAS, NO_SLURM
from posexp.errors import Misuse

if TYPE_CHECKING:
    from hydra.core.config_store import ConfigStore


def check_launcher(name: str) -> None:
    """Raise Misuse for the SLURM launcher on a machine without SLURM."""
    if name == "submitit_slurm" and shutil.which("sbatch") is None:
        raise Misuse(NO_SLURM)


def present_launchers(store: "ConfigStore") -> None:
    """Rename the config of each launcher plugin to `<name>_schema`, the base of posexp's YAML file of that name.

    Under the same name, Hydra would merge the two by a deprecated mechanism, with a warning.
    """
    from hydra.core.plugins import Plugins

    Plugins.instance()  # finds the installed plugins
    nodes = store.repo.get("hydra", {}).get("launcher", {})
    for name in EXTRAS:
        if (node := nodes.pop(f"{name}.yaml", None)) is not None:
            store.store(name=f"{name}_schema", node=node.node)


def threads(n_jobs: int) -> int:
    """Return the threads per process for `n_jobs` on this machine; -1 means one job per core, -2 one job less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)))
