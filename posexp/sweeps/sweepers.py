"""The setup of Hydra's sweepers. The preset of Optuna is configs/hydra/sweeper/optuna.yaml."""

import logging
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore

from posexp.errors import Misuse


def present() -> None:
    """Remove the plugin's config of its sweeper, which Hydra would merge with posexp's preset."""
    from hydra.core.plugins import Plugins

    Plugins.instance()  # finds the installed plugins
    ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).pop("optuna.yaml", None)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a dependency of Optuna that logs its own plugins


def in_a_study() -> bool:
    """Return whether this job is a trial of Optuna."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    return hydra.mode is RunMode.MULTIRUN and hydra.runtime.choices["hydra/sweeper"] == "optuna"


def check_study(overrides: list[str]) -> None:
    """Raise Misuse if Optuna is missing, or would optimise over seeds or schemes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if find_spec("optuna") is None:
        raise Misuse("hydra/sweeper=optuna comes with an extra: pip install 'posexp[optuna]'")
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        if override.is_sweep_override() and key == "seed":
            raise Misuse("a study over seeds would select the luckiest seed: use one seed, and sweep seeds afterwards")
        if override.is_sweep_override() and key == "scheme":
            raise Misuse(
                "a study must have one scheme, because the best values differ between schemes: "
                "for s in rope alibi; do posexp train -m hydra/sweeper=optuna +scheme=$s group=lr-$s …; done"
            )


def swept_by_config(loader: Any, command: str, overrides: list[str]) -> set[str]:
    """Return the keys that hydra.sweeper.params sweeps, as in {+scheme: "choice(rope,alibi)"} of an experiment."""
    from hydra.types import RunMode

    composed = loader.load_configuration(command, overrides, RunMode.MULTIRUN)
    return {str(key).lstrip("+") for key in composed.hydra.sweeper.get("params") or {}}
