"""What a sweep is started by: the launchers of configs/hydra/launcher/, each from an extra of posexp's."""

import os
import shutil

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from posexp.config.explain import EXTRAS, NO_SLURM
from posexp.errors import Misuse


def check_launcher(name: str) -> None:
    """Raises Misuse for SLURM's where there is no SLURM."""
    if name == "submitit_slurm" and shutil.which("sbatch") is None:
        raise Misuse(NO_SLURM)


def present_launchers(store: ConfigStore) -> None:
    """Makes what a plugin says of its launcher the schema of the YAML of that name.

    Left under that name, Hydra would merge the two, and warn that it will not for long.
    """
    Plugins.instance()  # finds the plugins that are installed
    nodes = store.repo.get("hydra", {}).get("launcher", {})
    for name in EXTRAS:
        if (node := nodes.pop(f"{name}.yaml", None)) is not None:
            store.store(name=f"{name}_schema", node=node.node)


def threads(n_jobs: int) -> int:
    """Of each process, where `n_jobs` of them share this machine; -1 stands for one per core, -2 for one less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)))
