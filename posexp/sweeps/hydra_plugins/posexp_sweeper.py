"""A sweeper that starts the missing cells of a sweep (posexp/sweeps/plan.py).

Hydra loads plugins from the namespace package `hydra_plugins`, which has no __init__.py because other projects share
the name. posexp/cli/main.py puts the parent folder on the path.
"""

import copy
import re
import sys
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict, read_write


@cache
def is_group(loader: ConfigLoader, key: str) -> bool:
    return bool(loader.get_group_options(key))


@cache
def one_file(loader: ConfigLoaderImpl, path: str) -> Any:
    """Return the config of a group's choice, or None if it does not exist or is put together from several files."""
    found = loader.repository.load_config(path)
    return None if found is None or found.defaults_list or found.header.get("package") else found.config


class CellSweeper(BasicSweeper):
    """Hydra's basic sweeper, limited to missing cells. With `detach`, another process runs the sweep."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None, detach: bool = False):
        super().__init__(max_batch_size, params)
        self.detach = detach
        self.run_of: dict[tuple[str, ...], Any] = {}
        self.composed: dict[tuple[str, ...], tuple[Any, Any]] = {}  # by the overrides that are not plain values

    @property
    def on_slurm(self) -> bool:
        return str(self.config.hydra.launcher._target_).endswith(".SlurmLauncher")

    def split_arguments(self, overrides: Any, max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override]
        from posexp.sweeps.plan import detach, missing

        (cells,) = super().split_arguments(overrides, None)
        todo = missing(cells, self.compose, elsewhere=self.on_slurm)
        self.run_of = {tuple(words): run for words, run in todo}
        cells = [words for words, _ in todo]
        if self.detach and cells:
            words = [word for word in sys.argv[1:] if word != "hydra.sweeper.detach=true"]
            detach(Path(str(self.config.hydra.sweep.dir)), ["train", *words])
        if self.detach or not cells:
            return []
        return list(self.split_overrides_to_chunks(cells, max_batch_size))

    def _parse_config(self) -> list[str]:
        """Return the overrides of hydra.sweeper.params as they would be typed."""
        from posexp.config.overrides import settle

        return settle("train", super()._parse_config())

    def compose(self, words: list[str]) -> Any:
        """Return the configuration of a cell.

        Hydra takes 0.1 s to compose one. Cells that differ only in plain values, or in a scheme of one file, are
        therefore composed once.
        """
        from posexp.config.compose import typed
        from posexp.runs.parent import inherit

        loader, before = self.hydra_context.config_loader, HydraConfig.instance().cfg
        typed_plainly = [word for word in words if re.match(r"[a-z_]+(\.\w+)*=", word)]
        plain = [word for word in typed_plainly if not is_group(loader, word.partition("=")[0])]
        others = tuple(word for word in words if word not in plain)
        about_scheme = [word for word in others if "scheme" in word]
        name = about_scheme[0].removeprefix("scheme=") if len(about_scheme) == 1 else ""
        scheme = one_file(loader, f"scheme/{name}")
        alike = others if scheme is None else tuple(word for word in others if word not in about_scheme)
        try:
            if alike not in self.composed:
                whole = loader.load_sweep_config(self.config, list(others))
                HydraConfig.instance().set_config(whole)
                with open_dict(whole):
                    del whole["hydra"]
                self.composed[alike] = whole, HydraConfig.instance().cfg
            config, HydraConfig.instance().cfg = self.composed[alike]
            config = copy.deepcopy(config)
            if scheme is not None:
                config.scheme = scheme
                with read_write(HydraConfig.get().runtime.choices) as choices:  # which the label reads
                    choices.scheme = name
            ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(plain), config)
            return typed(config, inherit, words)
        finally:
            HydraConfig.instance().cfg = before

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """Return the next batch of cells. On SLURM, first record in each run folder the mark of its job."""
        from posexp.jobs.slurm import GUARD, submit
        from posexp.sweeps.cells import count

        batch = super().get_job_batch()
        if not self.on_slurm:
            count(len(self.run_of))
        else:
            from posexp.sweeps.watch import watch_jobs  # submitit comes with an extra

            watch_jobs(Path(str(self.config.hydra.sweep.dir)).name)
            own, mark = self.config.hydra.launcher.comment, f"posexp-{uuid.uuid4().hex[:12]}"
            self.launcher.params["comment"] = f"{own} {mark}" if own else mark
            self.launcher.params["setup"] = [*(self.config.hydra.launcher.setup or []), GUARD]
            for index, words in enumerate(batch):
                submit(self.run_of[tuple(words)].folder, mark, index)
        return batch

    def validate_batch_is_legal(self, batch: Any) -> None:
        """Accept the batch, which split_arguments has checked."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep. Raises Misuse or RunFailed with one line for an error of submitit."""
        from posexp.errors import Misuse, RunFailed
        from posexp.sweeps.cells import forget, swept

        try:
            return super().sweep(arguments)
        except Exception as error:
            if not type(error).__module__.startswith("submitit"):
                raise
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            if type(error).__name__ == "FailedJobError" and "sbatch" in str(error):
                refusal = next((line for line in str(error).splitlines() if "sbatch: error" in line), last)
                raise Misuse(f"SLURM rejected the jobs: {refusal.removeprefix('sbatch: error: ')}") from error
            remedy = "posexp runs shows which, and the same command goes on"
            raise RunFailed(f"a job ended without a result: {remedy} ({last})") from error
        finally:
            forget()
            if self.detach or self.on_slurm:
                swept.clear()  # they run elsewhere
