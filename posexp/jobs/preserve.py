"""The state of a Python process that posexp's functions restore, so that a caller's program is as it was before.

Settings of PyTorch are restored by posexp/model/cpu.py, and signal handlers by posexp/jobs/signals.py.
"""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from posexp.errors import Stopped


@contextmanager
def preserved() -> Iterator[None]:
    """Restore after the block the environment, import path, hooks, warning filters, and all of Hydra's state.

    A signal other than SIGINT that stopped the block (Stopped) is raised again for the handler of the caller.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins

    Plugins.instance()  # looks for plugins once in a process, and they store configs, which must outlast the block
    hydra, config, store = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, dict(ConfigStore.instance().repo)
    environment, path, disabled = dict(os.environ), list(sys.path), logging.root.manager.disable
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    GlobalHydra.instance().hydra = None  # the caller may be a program of Hydra, of which a process has one
    signum = signal.SIGINT
    try:
        with warnings.catch_warnings():
            yield
    except Stopped as stop:
        signum = signal.Signals(stop.signum)
        raise
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg, ConfigStore.instance().repo = hydra, config, store
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        sys.path[:] = path
        logging.disable(disabled)
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        if signum != signal.SIGINT:
            signal.raise_signal(signum)
