"""What Hydra's sweepers need of posexp. Optuna's is presented by configs/hydra/sweeper/optuna.yaml."""

import logging
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore

from posexp.errors import Misuse


def present() -> None:
    """Puts posexp's preset in the place of what the plugin says of its sweeper; Hydra would merge the two."""
    from hydra.core.plugins import Plugins

    Plugins.instance()  # finds the plugins that are installed
    ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).pop("optuna.yaml", None)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Optuna brings it, and it greets with its own plugins


def in_a_study() -> bool:
    """Whether this job is one of those whose result Optuna waits for."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    return hydra.mode is RunMode.MULTIRUN and hydra.runtime.choices["hydra/sweeper"] == "optuna"


def check_study(overrides: list[str]) -> None:
    """Raises Misuse where there is no Optuna, and for what it would choose by comparing losses, and should not."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if find_spec("optuna") is None:
        raise Misuse("hydra/sweeper=optuna comes with an extra: pip install 'posexp[optuna]'")
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        if override.is_sweep_override() and key == "seed":
            raise Misuse("a study over seeds would choose the luckiest: give it one seed, and sweep seeds afterwards")
        if override.is_sweep_override() and key == "scheme":
            raise Misuse(
                "a study is of one scheme, as each has values of its own: "
                "for s in rope alibi; do posexp train -m hydra/sweeper=optuna +scheme=$s group=lr-$s …; done"
            )


def swept_by_config(loader: Any, command: str, overrides: list[str]) -> set[str]:
    """What hydra.sweeper.params sweeps, as an experiment's {+scheme: "choice(rope,alibi)"} does."""
    from hydra.types import RunMode

    composed = loader.load_configuration(command, overrides, RunMode.MULTIRUN)
    return {str(key).lstrip("+") for key in composed.hydra.sweeper.get("params") or {}}
